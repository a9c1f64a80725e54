"""Files of facts, and files that appear whole or not at all."""

import errno
import hashlib
import json
import zipfile
from contextlib import nullcontext
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from advkit.core import files
from advkit.core.errors import ConfigError, OutputError
from advkit.core.journal import Journal

SOME = settings(max_examples=40)
FACTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(
    lambda text: json.dumps({"said": text}, ensure_ascii=False)
)


@SOME
@given(before=st.lists(FACTS, max_size=4), after=st.lists(FACTS, max_size=3), cut=st.integers(0, 400))
def test_facts_outlive_a_crash_at_any_byte(tmp_path_factory, before, after, cut):
    def content(facts):
        lines = ('{"schema": "toy/facts", "version": 2}', *facts)
        sums = (hashlib.sha256(line.encode()).hexdigest() for line in lines)
        pairs = zip(lines, sums, strict=True)
        return "".join(f'{line[:-1]},"sha256":"{digest}"}}\n' for line, digest in pairs).encode()

    path = tmp_path_factory.mktemp("journal") / "facts.jsonl"
    journal = Journal(path, "toy/facts", 2)
    assert (journal.damaged, journal.read(), journal.damaged) == (0, [], 0)
    path.write_bytes(b"")
    for number, fact in enumerate(before):
        journal.add(fact)
        assert Journal(path, "toy/facts", 2).read() == before[: number + 1]  # at once, not when it is closed
    assert path.read_bytes() == (content(before) if before else b"")
    left = content(before)[:cut]
    path.write_bytes(left)
    facts = before[: max(left.count(b"\n") - 1, 0)]
    assert journal.read() == facts
    journal.replace(facts)
    assert path.read_bytes() == content(facts)
    for fact in after:
        journal.add(fact)
    assert journal.read() == facts + after  # it was at rest, so the new file has what was added
    journal.close()
    journal.add("last")
    journal.close()
    assert path.read_bytes() == content([*facts, *after, "last"])


@SOME
@given(data=st.data(), facts=st.lists(FACTS, min_size=1, max_size=4))
def test_a_damaged_line_is_left_out_and_counted(tmp_path_factory, data, facts):
    """Whatever bit of the file has changed, the header's included."""
    path = tmp_path_factory.mktemp("journal") / "facts.jsonl"
    journal = Journal(path, "toy/facts", 2)
    journal.replace(facts)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    hit = bytes(content[: place // 8 + 1]).count(b"\n") - (content[place // 8] == 10)
    joined = path.read_bytes().count(b"\n") <= len(facts)  # an end of line was hit
    found = journal.read()
    if not joined:
        assert found == [fact for number, fact in enumerate(facts, 1) if number != hit]
        assert journal.damaged == 1 + (content[place // 8] == 10)
    else:
        gone = {hit, hit + 1} if hit < len(facts) else {hit}  # the last line, which a crash may have cut
        assert found == [fact for number, fact in enumerate(facts, 1) if number not in gone]


def test_a_file_without_seals_is_read_as_it_is(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text('{"schema": "toy/facts", "version": 2}\n{"a": 1}\n')
    journal = Journal(path, "toy/facts", 2)
    journal.add('{"b": 2}')
    journal.close()
    assert journal.read() == ['{"a": 1}', '{"b": 2}'] and journal.damaged == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_a_first_line_without_a_seal_names_the_format_unless_others_have_one(tmp_path, sealed):
    path, first = tmp_path / "facts.jsonl", '{"schema": "toy/facts", "version": 1}'
    journal = Journal(path, "toy/facts", 2)
    journal.replace(['{"a": 1}'])
    path.write_text(f"{first}\n{path.read_text().splitlines()[1] if sealed else '{}'}\n")
    with nullcontext() if sealed else pytest.raises(ConfigError):
        assert journal.read() == ['{"a": 1}'] and journal.damaged == 1


@pytest.mark.parametrize("other", [("toy/facts", 1), ("toy/other", 2)])
def test_another_format_is_refused(tmp_path, other):
    Journal(tmp_path / "facts.jsonl", *other).replace(['{"a": 1}'])
    with pytest.raises(ConfigError, match=r"facts\.jsonl"):
        Journal(tmp_path / "facts.jsonl", "toy/facts", 2).read()


def test_a_link_in_the_place_of_a_journal_is_not_followed(tmp_path):
    Journal(tmp_path / "other", "toy/facts", 2).replace(['{"a": 1}'])
    content = (tmp_path / "other").read_bytes()
    (tmp_path / "facts.jsonl").symlink_to(tmp_path / "other")
    journal = Journal(tmp_path / "facts.jsonl", "toy/facts", 2)
    for work in (journal.read, lambda: journal.add('{"b": 2}')):
        with pytest.raises((OSError, OutputError)):
            work()
    assert (tmp_path / "other").read_bytes() == content


def test_a_text_of_more_than_256_mib_is_not_read(tmp_path):
    for size, read in ((1 << 28, True), ((1 << 28) + 1, False)):
        with (tmp_path / "large").open("wb") as file:
            file.truncate(size)
        with nullcontext() if read else pytest.raises(ValueError):
            assert len(files.read(tmp_path / "large")) == size


@pytest.mark.parametrize("existing", [None, "old"])
@pytest.mark.parametrize("crash", ["before", "between", "after"])
def test_a_crash_leaves_the_old_file(tmp_path, existing, crash):
    folder = tmp_path / "a" / "b"
    if existing:
        files.write_text(folder / "file.txt", existing)
    with pytest.raises(RuntimeError), files.atomic(folder / "file.txt") as temporary:
        assert temporary.parent == folder
        if crash != "before":
            temporary.write_text("new" if crash == "after" else "n")
        raise RuntimeError
    assert {path.name: path.read_text() for path in folder.iterdir()} == (
        {"file.txt": existing} if existing else {}
    )
    files.write_text(folder / "file.txt", "naïve")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file.txt": "naïve".encode()}


TOLD = ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "EEXIST", "ENOENT"]


@pytest.mark.parametrize("number", [getattr(errno, name) for name in [*TOLD, "EIO", "EINTR"]])
def test_what_the_disk_refuses_is_told_and_a_fault_of_the_disk_is_not_hidden(number, tmp_path):
    told = errno.errorcode[number] in TOLD
    with pytest.raises(OutputError if told else OSError) as caught, files.writing(tmp_path / "x"):
        raise OSError(number, "no")
    assert not told or (str(tmp_path / "x") in str(caught.value) and caught.value.__cause__.errno == number)


@SOME
@given(
    array=arrays.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), arrays.array_shapes(min_dims=2)
    ),
    cut=st.integers(0, 10),
    order=st.sampled_from("CF"),
)
def test_arrays_come_back_whole_or_in_pieces(tmp_path_factory, array, cut, order):
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    array = np.asarray(array, order=order)
    pieces = files.Pieces(array.shape, array.dtype.name, iter([array[:cut], array[cut:]]))
    files.write_arrays(path, whole=array, pieces=pieces)
    with np.load(path) as found:
        assert sorted(found) == ["pieces", "whole"]
        for got in found.values():
            assert got.dtype == array.dtype and got.shape == array.shape
            assert got.tobytes() == array.tobytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_DEFLATED
            assert member.extract_version >= 45  # ZIP64: more than 2 GiB of an array are no fault
    assert np.lib.format.read_magic(BytesIO(zipfile.ZipFile(path).read("pieces.npy"))) == (1, 0)


def test_arrays_that_would_run_code_are_not_written(tmp_path):
    with pytest.raises(ValueError):
        files.write_arrays(tmp_path / "a.npz", x=np.array([object()]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", ["nothing", "file", "folder"])
def test_what_is_there_is_replaced_only_if_it_may_be(tmp_path, there, overwrite):
    path = tmp_path / "x"
    path.mkdir() if there == "folder" else path.touch() if there == "file" else None
    if there == "nothing" or (there == "file" and overwrite):
        files.refuse_to_replace(path, overwrite=overwrite)
    else:
        with pytest.raises(OutputError):
            files.refuse_to_replace(path, overwrite=overwrite)
