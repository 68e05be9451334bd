import json
import os
from pathlib import Path

import pytest

from tinytorch.book import results

RUN = {
    "command": "make bench",
    "date": "2026-01-31",
    "machine": {"cpu": "A CPU", "cores": 2, "blas": "openblas Haswell", "python": "3.11.7", "numpy": "2.4.6"},
    "rows": {
        "epoch": {"value": 1.3249, "low": 1.291, "high": 1.35, "unit": "x", "what": "CNN training epoch"},
        "parameters": {"value": 98666, "unit": "", "what": "parameters"},
    },
}


@pytest.fixture
def known(tmp_path: Path) -> dict[str, results.Row]:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"core": RUN}))
    return results.rows(path, cards=tmp_path / "none")


def test_every_published_number_in_the_markdown_files_is_fresh():
    documents = results.documents()
    assert documents
    assert results.stale(documents, results.rows()) == []


def test_a_table_has_each_row_its_interval_and_its_machine(known):
    assert results.render("<!-- results:core/* -->\n<!-- /results -->", known) == (
        "<!-- results:core/* -->\n"
        "| what | result | interval |\n"
        "| --- | --- | --- |\n"
        "| CNN training epoch | 1.32 x | 1.29 to 1.35 |\n"
        "| parameters | 98,666 |  |\n"
        "\n"
        "Measured by `make bench` on 2026-01-31: A CPU, 2 cores, BLAS openblas Haswell, Python 3.11.7, NumPy 2.4.6.\n"
        "<!-- /results -->"
    )


def test_a_marker_in_a_sentence_becomes_one_value(known):
    text = (
        "It takes <!-- results:core/epoch --><!-- /results --> as long, "
        "by <!-- results:core/parameters -->5<!-- /results -->."
    )
    assert results.render(text, known) == (
        "It takes <!-- results:core/epoch -->1.32 x<!-- /results --> as long, "
        "by <!-- results:core/parameters -->98,666<!-- /results -->."
    )


def test_a_number_changed_by_hand_is_stale_until_it_is_written(known, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- results:core/epoch -->1.32 x<!-- /results -->")
    assert results.stale([path], known) == []
    path.write_text("<!-- results:core/epoch -->1.20 x<!-- /results -->")
    assert results.stale([path], known) == [path]
    assert results.stale([path], known, write=True) == [path]
    assert path.read_text() == "<!-- results:core/epoch -->1.32 x<!-- /results -->"


def test_a_marker_that_names_nothing_is_an_error_that_names_the_file(known, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- results:core/speed -->1<!-- /results -->")
    with pytest.raises(KeyError, match=r"README\.md: <!-- results:core/speed --> names no measured row"):
        results.stale([path], known)


def test_recording_a_run_leaves_the_others_and_names_the_machine(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"core": RUN}))
    results.record("study", "python study.py", {"x": {"value": 2.5, "unit": "ms", "what": "a step"}}, path)
    rows = results.rows(path, cards=tmp_path / "none")
    assert str(rows["core/epoch"]) == "1.32 x"
    assert str(rows["study/x"]) == "2.5 ms"
    assert rows["study/x"].source.startswith("Measured by `python study.py` on 2")
    assert f"{os.cpu_count()} cores, BLAS " in rows["study/x"].source


def test_the_runs_of_a_study_stand_beside_the_measurements(tmp_path):
    measurements, study = tmp_path / "measured.json", tmp_path / "study.json"
    measurements.write_text(json.dumps({"core": RUN}))
    study.write_text(json.dumps({"17_study": RUN | {"values": {"epoch": [1.3, 1.4]}}}))
    rows = results.rows(measurements, study, cards=tmp_path / "none")
    assert list(rows) == ["core/epoch", "core/parameters", "17_study/epoch", "17_study/parameters"]
    with pytest.raises(ValueError, match=r"study\.json has runs that another file has, too: 17_study"):
        results.rows(study, study, cards=tmp_path / "none")


def test_a_models_card_is_a_run(tmp_path):
    accuracy = {"value": 92.61, "unit": "%", "what": "right answers"}
    card = {"name": "reference_cnn", "parameters": 98666, "rows": {"accuracy": accuracy}, "seed": 0}
    (tmp_path / "reference_cnn.json").write_text(json.dumps(card))
    rows = results.rows(tmp_path / "none.json", cards=tmp_path)
    assert {name: str(row) for name, row in rows.items()} == {
        "zoo-reference_cnn/parameters": "98,666",
        "zoo-reference_cnn/accuracy": "92.61 %",
    }
    assert "evaluate reference_cnn" in rows["zoo-reference_cnn/parameters"].source


def test_an_incomplete_row_is_named(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"core": RUN | {"rows": {"epoch": {"value": 1.0, "unit": "x"}}}}))
    with pytest.raises(ValueError, match=r"core/epoch is no published number: .*what"):
        results.rows(path, cards=tmp_path / "none")


def test_asking_for_what_was_not_measured_tells_what_was(monkeypatch, known):
    monkeypatch.setattr(results, "rows", lambda: known)
    assert results.measured("core/epoch").value == 1.3249
    with pytest.raises(KeyError, match="core/speed; there is: core/epoch, core/parameters"):
        results.measured("core/speed")
