"""Pictures drawn with matplotlib."""

import logging

from advkit.report import plots


def test_a_picture_that_cannot_be_drawn_is_named_and_leaves_nothing(tmp_path, caplog):
    figure, axes = plots.figure((2, 2))
    axes.plot([0, 1])
    plots.save(figure, tmp_path / "drawn.png")
    with caplog.at_level(logging.WARNING):
        plots.save(figure, tmp_path / "drawn.png" / "lost.png")
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
    assert [str(tmp_path / "drawn.png" / "lost.png") in record.getMessage() for record in caplog.records] == [
        True
    ]
