import pytest

from minidit.cli import main


@pytest.fixture
def minidit(capsys):
    """minidit(*arguments) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return call
