from __future__ import annotations

import signal
import subprocess
import sys

import pytest


def test_a_missed_bar_is_1(advkit):
    assert advkit("fake", "--model", "x", "--min-robust", "0.03").exit_code == 0
    answer = advkit("fake", "--model", "x", "--min-robust", "0.5")
    assert answer.exit_code == 1
    assert "fake: done" in answer.stdout


@pytest.mark.parametrize(
    ("model", "said"),
    [("fault", "give another one with --model"), ("full", "runs/x"), ("huge", "--batch-size")],
)
def test_a_users_fault_is_one_sentence_and_2(advkit, model, said):
    answer = advkit("fake", "--model", model)
    assert answer.exit_code == 2 and answer.stdout == ""
    assert answer.stderr.startswith("error: ") and said in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback_and_is_70(advkit):
    answer = advkit("fake", "--model", "bug")
    assert answer.exit_code == 70
    assert "RuntimeError: inside" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("fault: ")


def test_all_faults_at_once(advkit):
    answer = advkit(
        *("fake", "--steps", "0", "--labels", "some", "--eps", "8/x", "--norm", "l3"),
        *("--set", "inner.k=2", "--set", "stpes=3"),
    )
    assert answer.exit_code == 2
    for said in (
        "'model' is missing",
        "steps: ",
        "labels",
        "'8/x' is no fraction",
        "'l3'",
        "unknown key 'stpes' (did you mean 'steps'?)",
        "advkit fake --help",
    ):
        assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("fke",), "'fake'"),
        (("fake", "--modl", "x"), "--model"),
        (("fake", "--model"), "'--model'"),
        (("models", "lineag"), "'lineage'"),
        (("ls", "attcks"), "'attacks'"),
        (("ls", "data", "digts"), "'digits'"),
        (("data", "get", "mnst"), "'mnist'"),
        (("run", "gan/digit"), "'gan/digits'"),
    ],
)
def test_what_was_meant_is_named(advkit, words, meant):
    answer = advkit(*words)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ")
    assert meant in answer.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts(process, number, code):
    running = process("fake", "--model", "endless")
    assert running.stderr.readline() == "waiting\n"
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert said.startswith("interrupted; ") and said.count("\n") == 1


def test_sigterm_handler_is_put_back(advkit):
    before = signal.getsignal(signal.SIGTERM)
    assert advkit("fake", "--model", "self-destruct").exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_goes_away_is_no_fault(process):
    running = process("models", "--help")
    running.stdout.close()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 141
    assert said == ""


def test_module_and_script_are_the_same():
    done = subprocess.run([sys.executable, "-m", "advkit", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "'nothing'" in done.stderr
