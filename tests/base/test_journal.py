"""Files of facts."""

import pytest

from advkit.errors import ConfigError
from advkit.journal import Journal


def test_facts_outlive_a_crash_in_the_middle_of_a_line(tmp_path):
    journal = Journal(tmp_path / "facts.jsonl", "toy/facts", 2)
    assert journal.read() == []
    for fact in ("one", "two"):
        journal.add(fact)
    assert journal.read() == ["one", "two"]  # at once, not when it is closed
    journal.close()
    whole = journal.path.read_text()
    assert whole.splitlines()[0] == '{"schema": "toy/facts", "version": 2}'
    journal.path.write_text(whole + "thr")
    assert journal.read() == ["one", "two"]
    journal.replace(journal.read())
    assert journal.path.read_text() == whole
    journal.add("three")
    assert journal.read() == ["one", "two", "three"]
    journal.close()


def test_a_crash_in_the_first_line_leaves_an_empty_journal(tmp_path):
    (tmp_path / "facts.jsonl").write_text('{"sch')
    assert Journal(tmp_path / "facts.jsonl", "toy/facts", 2).read() == []


def test_another_format_is_refused(tmp_path):
    Journal(tmp_path / "facts.jsonl", "toy/facts", 1).replace(["one"])
    with pytest.raises(ConfigError, match=r"facts\.jsonl was written by another version"):
        Journal(tmp_path / "facts.jsonl", "toy/facts", 2).read()
