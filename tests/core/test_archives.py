"""Archives, whole and damaged."""

import zipfile
from contextlib import nullcontext

import pytest

from advkit.core import files


@pytest.mark.parametrize(
    ("size", "packed", "bomb"),
    [(2**28, 1, False), (2**28 + 1, 1, True), (2**30, 2**30 // 100, True), (2**30, 2**30 // 100 + 1, False)],
)
def test_a_member_that_unpacks_to_far_more_than_it_takes_is_refused(size, packed, bomb):
    member = zipfile.ZipInfo("weights")
    member.file_size, member.compress_size = size, packed
    with pytest.raises(ValueError, match="weights") if bomb else nullcontext():
        files.refuse_bomb(member)


def test_archives_are_told_by_their_end_and_listed_if_they_are_whole(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside", b"1")
    whole = path.read_bytes()
    assert files.is_zip(path) and files.zip_names(path) == ["inside"]
    path.write_bytes(whole[:-1])
    assert files.zip_names(path) == []
    path.write_bytes(b"no archive")
    assert not files.is_zip(path) and files.zip_names(path) == []
