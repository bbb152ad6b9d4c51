"""What the package tells a person: nothing by itself, bare lines on the command line, and changed by what runs it."""

import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from cxrfast._logging import console, get_logger, has_console, indented, once, printable, printable_lines, quiet
from tests.interpreter import run_code

logger = get_logger("cxrfast.tests")


def test_nothing_is_shown_without_configuration():
    done = run_code(
        "import logging, cxrfast; log = logging.getLogger('cxrfast.somewhere'); log.info('a'); log.warning('b')"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_command_line_shows_bare_lines(capsys):
    assert not has_console()
    with console():
        assert has_console()
        logger.info("100 % of\nit")
        logger.warning("  a warning")
        logger.debug("not this")
    logger.info("after")
    assert capsys.readouterr() == ("100 % of\nit\n  a warning\n", "")
    assert not has_console()
    assert logging.getLogger("cxrfast").level == logging.NOTSET


def test_a_line_stands_above_a_progress_bar(capsys):
    with console(), tqdm(total=2, file=sys.stdout, desc="bar", disable=False) as bar:
        bar.update()
        logger.info("a line")
    text = capsys.readouterr().out
    before, after = text.split("a line\n")
    assert before.endswith("\r")  # the bar is cleared, and drawn again below the line
    assert "bar:" in before
    assert "bar:" in after


def test_lines_are_indented_from_the_inside_out(logged):
    with indented("> "):
        logger.info("one")
        with indented("- "):
            logger.info("two %d", 2)
    logger.info("three")
    assert logged.messages == ["> one", "> - two 2", "three"]


def test_lines_are_shown_once_or_not_at_all(logged):
    with once():
        for line in ("a", "b", "a"):
            logger.info(line)
        with quiet():
            logger.warning("c")
        with quiet(when=False):
            logger.info("c")
    logger.info("a")
    assert logged.messages == ["a", "b", "c", "a"]


def test_changes_end_with_an_error(logged):
    with pytest.raises(KeyError), indented("> "), quiet():
        raise KeyError
    logger.info("a")
    assert logged.messages == ["a"]


def test_lines_of_epochs_keep_their_columns(logged):
    with indented("> "), quiet():
        logging.getLogger("cxrfast.training.loop").info(" unary   1  loss 25.9586")
    assert logged.messages == [" unary   1  loss 25.9586"]


HOSTILE = "a\x1b[2J\x07\r\n\x9b31m\u202egnp\u2066.\u2028\u200b\udcff\x7f.png"
SAFE = r"a\x1b[2J\x07\r\n\x9b31m\u202egnp\u2066.\u2028\u200b\udcff\x7f.png"


def test_control_characters_are_escaped():
    assert printable(HOSTILE) == SAFE
    assert printable_lines(f"{HOSTILE}\nnext") == SAFE.replace(r"\n", "\n") + "\nnext"
    for plain in ("Brust-Röntgen 胸部.png", "a b/c.png", "ΔE – “x” é", ""):
        assert printable(plain) == plain


@given(st.text())
def test_what_is_printed_is_one_line_that_every_encoding_takes(text):
    safe = printable(text)
    assert len(safe.splitlines()) <= 1
    safe.encode("utf-8")
    assert printable(safe) == safe


def test_logged_names_reach_the_terminal_escaped(capsys):
    with console():
        get_logger("cxrfast.test").info(f"read {HOSTILE}")
    assert capsys.readouterr().out == "read " + SAFE.replace(r"\n", "\n") + "\n"
