import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.report.readme import main, replace_between_markers
from research.report.tables import markdown_table
from tests.report.example import example_result

README = "# Title\n\n<!-- table:v2 -->\nold\n<!-- /table:v2 -->\n\nThe end.\n"
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"))


@given(WORDS, WORDS, WORDS, WORDS)
def test_only_the_place_between_the_markers_changes_and_twice_is_once(before, old, after, table):
    text = f"{before}<!-- table:a -->{old}<!-- /table:a -->{after}"
    new = replace_between_markers(text, "a", table)
    assert new == f"{before}<!-- table:a -->\n{table.strip()}\n<!-- /table:a -->{after}"
    assert replace_between_markers(new, "a", table) == new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no markers", "<!-- table:a --> must stand exactly once, but stands 0 times"),
        ("<!-- table:a -->", "<!-- /table:a --> must stand exactly once, but stands 0 times"),
        ("<!-- table:a --><!-- table:a --><!-- /table:a -->", "<!-- table:a --> .* stands 2 times"),
        ("<!-- table:a --><!-- /table:a --><!-- /table:a -->", "<!-- /table:a --> .* stands 2 times"),
        ("<!-- /table:a --><!-- table:a -->", "<!-- /table:a --> must come after <!-- table:a -->"),
    ],
)
def test_missing_doubled_or_swapped_markers_are_errors(text, message):
    with pytest.raises(ValueError, match=message):
        replace_between_markers(text, "a", "table")


def test_a_table_that_holds_a_marker_is_refused():
    with pytest.raises(ValueError, match="the table itself holds the marker"):
        replace_between_markers(README, "v2", "x <!-- /table:v2 -->")


@pytest.fixture
def files(tmp_path):
    readme, result = tmp_path / "README.md", tmp_path / "v2.json"
    readme.write_text(README, encoding="utf-8")
    result.write_text(json.dumps(example_result()), encoding="utf-8")
    return readme, result


def test_the_command_writes_checks_and_notices_a_changed_number(files, capsys):
    readme, result = files
    arguments = [str(readme), str(result)]
    assert main([*arguments, "--check"]) == 1
    assert "tables differ; run: python -m research.report.readme" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == README
    assert main(arguments) == 0
    assert markdown_table(example_result()) in readme.read_text(encoding="utf-8")
    assert main([*arguments, "--check"]) == 0
    changed = example_result()
    changed["rows"][1]["ms_referee"] += 0.001
    result.write_text(json.dumps(changed), encoding="utf-8")
    assert main([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "v2.json: "), ("{}", "name is missing"), ("[]", "result must be an object, not list")],
)
def test_bad_result_files_give_one_line_and_code_2(files, capsys, content, message):
    readme, result = files
    result.write_text(content, encoding="utf-8")
    assert main([str(readme), str(result)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert readme.read_text(encoding="utf-8") == README


def test_a_missing_file_gives_one_line_and_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.md"), str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
