"""What is asked of the user: one of many, a limit; and the help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, RadioButton, RadioSet, Static
from textual.widgets.option_list import Option

from objcg.cli.table import printable

from . import columns, steering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from objcg.region import GroupInfo

_MOST = 1000
"""As many are listed. Who has more types a part of what is meant."""

T = TypeVar("T")

_FRAME = """
    {name} {{ align: center middle; background: $background 60%; }}
    {name} > .frame {{
        width: 90%; max-width: 100; height: auto; max-height: 90%;
        border: round $primary; padding: 0 1; background: $surface;
    }}
"""


@dataclass(frozen=True)
class Choice(Generic[T]):
    """One of many, and how it is listed."""

    text: str
    value: T


class Choose(ModalScreen["T | None"], Generic[T]):
    """One of many, which can be narrowed by typing. Dismissed with it, or None."""

    DEFAULT_CSS = (
        _FRAME.format(name="Choose")
        + """
    Choose Input, Choose Input:focus { border: none; height: 1; margin: 1 0; padding: 0 1; }
    Choose OptionList { height: auto; max-height: 20; border: none; padding: 0; }
    """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", priority=True),
        Binding("up", "move(-1)", "Up", priority=True),
        Binding("down", "move(1)", "Down", priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[Choice[T]]) -> None:
        super().__init__()
        self._title = title
        self._choices = choices
        self._listed: list[Choice[T]] = []

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        with Vertical(classes="frame") as frame:
            yield Input(placeholder="type a part of it; Enter chooses, Escape cancels")
            yield OptionList(markup=False)
            yield Static(id="more", markup=False)
        frame.border_title = Content(printable(self._title))

    def on_mount(self) -> None:
        """List all."""
        self._list("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """List what matches."""
        self._list(event.value)

    def _list(self, text: str) -> None:
        wanted = text.casefold()
        matches = [choice for choice in self._choices if wanted in choice.text.casefold()]
        self._listed = matches[:_MOST]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(Option(Content(printable(choice.text))) for choice in self._listed)
        options.highlighted = 0 if self._listed else None
        more = self.query_one("#more", Static)
        hidden = len(matches) - len(self._listed)
        more.display = bool(hidden) or not matches
        more.update(f"and {hidden:,} more" if hidden else "none matches")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take what is highlighted."""
        event.stop()
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self.dismiss(self._listed[at].value)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take what was clicked."""
        event.stop()
        self.dismiss(self._listed[event.option_index].value)

    def action_move(self, by: int) -> None:
        """Highlight another."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_cancel(self) -> None:
        """Choose none."""
        self.dismiss(None)


class Limit(NamedTuple):
    """What a knob is to be."""

    knob: str
    value: int | None


class AskLimit(ModalScreen["Limit | None"]):
    """A knob and a size. Dismissed with them, or None."""

    DEFAULT_CSS = (
        _FRAME.format(name="AskLimit")
        + """
    AskLimit RadioSet { border: none; width: 100%; padding: 0; margin: 1 0; }
    AskLimit Input, AskLimit Input:focus { border: none; height: 1; padding: 0 1; }
    AskLimit #error { margin-top: 1; color: $error; }
    AskLimit #hint { margin-top: 1; color: $text-muted; }
    """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", priority=True),
        Binding("up", "knob(-1)", "Knob above", priority=True),
        Binding("down", "knob(1)", "Knob below", priority=True),
    ]

    def __init__(self, group: GroupInfo) -> None:
        super().__init__()
        self._group = group

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        now = {"max": self._group.max, "high": self._group.high, "low": self._group.low}
        with Vertical(classes="frame") as frame:
            with RadioSet():
                for knob in steering.KNOBS:
                    value = now[knob]
                    text = "-" if value is None else columns.size(value)
                    yield RadioButton(f"memory.{knob:4}  now {text}", value=knob == "max")
            yield Input(placeholder='a size such as "512M" or "1.5G", or "max" for no limit')
            yield Static(id="error", markup=False)
            yield Static("Up, Down: knob   Enter: set   Escape: cancel", id="hint")
        path = columns.fitting_end(self._group.path, 60).rstrip()
        frame.border_title = Content(f"Limit of {path}")

    def on_mount(self) -> None:
        """Wait for the size."""
        self.query_one("#error").display = False
        self.query_one(Input).focus()

    @property
    def knob(self) -> str:
        """The knob that is chosen."""
        return steering.KNOBS[max(0, self.query_one(RadioSet).pressed_index)]

    def action_knob(self, by: int) -> None:
        """Choose another knob."""
        at = (steering.KNOBS.index(self.knob) + by) % len(steering.KNOBS)
        list(self.query(RadioButton))[at].value = True

    def on_input_changed(self, event: Input.Changed) -> None:
        """Forget what was wrong with the text before."""
        event.stop()
        self.query_one("#error").display = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take it, if it is a size."""
        event.stop()
        try:
            value = steering.parse(self.knob, event.value)
        except ValueError as error:
            wrong = self.query_one("#error", Static)
            wrong.update(printable(str(error)))
            wrong.display = True
            return
        self.dismiss(Limit(self.knob, value))

    def action_cancel(self) -> None:
        """Set nothing."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys, and what is shown."""

    DEFAULT_CSS = _FRAME.format(name="Help")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "app.pop_screen", "Close"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        with VerticalScroll(classes="frame") as frame:
            yield Static(self._text, markup=False)
        frame.border_title = "Help"
