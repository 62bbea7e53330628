"""x"""
from tests.smoke import Finished, run
import time
def test_a(finished: Finished) -> None:
    assert finished.code == 0
    t=time.time()
    print(run(finished.workdir)[0]); print(time.time()-t)
def test_b(finished, tmp_path):
    t=time.time()
    print(run(tmp_path/"x")[0]); print(time.time()-t)
