"""A step that is interrupted by hand ends quietly, with the status that shells know."""

from types import SimpleNamespace

import pytest

from marrowflow import __main__ as command


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.importlib, "import_module", lambda _: SimpleNamespace(main=interrupted))
    assert command.main(["statistics.accuracy"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
