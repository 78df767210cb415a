"""The rows on the screen: only those that are seen are made, however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Region as Area
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from . import columns
from .model import Level, level

if TYPE_CHECKING:
    from rich.style import Style
    from textual.binding import BindingType
    from textual.events import Click, Resize

    from objcg.region import GroupInfo

    from .model import Model, Row, Sort

_COLOURS = {Level.FINE: "fine", Level.NEAR: "near", Level.FULL: "full"}


class Headings(Widget):
    """What is above the columns. A click sorts by one."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"headings--text", "headings--sorted"}
    DEFAULT_CSS = """
    Headings { height: 1; background: $panel; padding: 0 1; }
    Headings .headings--text { color: $text-muted; }
    Headings .headings--sorted { color: $text; text-style: bold; }
    """

    class Sorted(Message):
        """A column was asked for."""

        def __init__(self, sort: Sort) -> None:
            super().__init__()
            self.sort = sort

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def render_line(self, y: int) -> Strip:
        """Return the headings; there is one line of them."""
        del y
        plain = self.get_component_rich_style("headings--text")
        bold = self.get_component_rich_style("headings--sorted")
        layout = columns.layout(self.size.width - 1)
        sort, is_reversed = self.model.sort, self.model.is_reversed
        text = columns.name_heading(layout.name, sort, is_reversed=is_reversed)
        segments = [Segment(text, bold if sort is sort.NAME else plain)]
        for column in layout.columns:
            text = columns.heading(column, sort, is_reversed=is_reversed)
            segments.append(Segment(f" {text}", bold if column.sort is sort else plain))
        return Strip(segments).adjust_cell_length(self.size.width, plain)

    def on_click(self, event: Click) -> None:
        """Sort by the column under the mouse."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        layout = columns.layout(self.size.width - 1)
        at = layout.name
        if offset.x < at:
            self.post_message(self.Sorted(type(self.model.sort).NAME))
        for column in layout.columns:
            if at < offset.x <= at + column.width and column.sort is not None:
                self.post_message(self.Sorted(column.sort))
            at += column.width + 1


class Groups(ScrollView, can_focus=True):
    """The groups; the cursor stays with its group, wherever that goes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "groups--cursor",
        "groups--dim",
        "groups--fine",
        "groups--near",
        "groups--full",
        "groups--text",
        "groups--trough",
    }
    DEFAULT_CSS = """
    Groups { height: 1fr; padding: 0 1; scrollbar-size-horizontal: 0; scrollbar-size-vertical: 1; }
    Groups .groups--text { color: $text; }
    Groups .groups--dim { color: $text-muted; }
    Groups .groups--cursor { background: $primary-muted; }
    Groups .groups--trough { background: $panel; }
    Groups .groups--fine { color: $success; }
    Groups .groups--near { color: $warning; text-style: bold; }
    Groups .groups--full { color: $error; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "end(0)", "First", show=False),
        Binding("end", "end(1)", "Last", show=False),
        Binding("left", "fold", "Collapse, or go to the parent", show=False),
        Binding("right", "unfold", "Expand, or go below", show=False),
        Binding("enter", "fold_or_unfold", "Collapse or expand", show=False),
    ]

    class Selected(Message):
        """The cursor is on another group."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self._cursor = 0
        self._uid: int | None = None
        self._select(0)

    @property
    def selected(self) -> GroupInfo | None:
        """The group under the cursor, as it was sampled last; None: no group is shown."""
        return self.model.row(self._cursor).group if self._cursor < len(self.model) else None

    def refresh_rows(self) -> None:
        """Draw the model anew, of which anything may have changed."""
        found = None if self._uid is None else self.model.index(self._uid)
        # what was under the cursor is shown no more: what is in its place now
        self._select(self._cursor if found is None else found)
        self.virtual_size = Size(self.size.width, len(self.model))
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        """Lay it out for another size."""
        del event
        self.refresh_rows()
        self.show_cursor()

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        width = self.size.width
        index = y + self.scroll_offset.y
        if index >= len(self.model):
            return Strip.blank(width, self.rich_style)
        base = self.rich_style
        if index == self._cursor:
            base += self.get_component_rich_style("groups--cursor", partial=True)
        row = self.model.row(index)
        return Strip(self._segments(row, width, base)).adjust_cell_length(width, base)

    def _segments(self, row: Row, width: int, base: Style) -> list[Segment]:
        # one cell stays free, so that the last column does not touch the scroll bar
        layout = columns.layout(width - 1)
        found = level(row.group)
        colour = base + self._style(_COLOURS[found])
        text = base + self._style("text" if row.is_match else "dim")
        named = colour if found is not Level.FINE else text
        segments = [
            Segment(columns.name(row, layout.name, flat=self.model.is_flat), named),
        ]
        for column in layout.columns:
            cell = columns.cell(column, row)
            segments.append(Segment(" ", base))
            if columns.is_bar(column) and not cell.isspace():
                segments.append(Segment(cell, colour + self._style("trough")))
            elif column.name == "share":
                segments.append(Segment(cell, colour))
            elif column.name == "events" and row.since:
                segments.append(Segment(cell, base + self._style("near")))
            else:
                segments.append(Segment(cell, text))
        return segments

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"groups--{name}", partial=True)

    # --- the cursor

    def _select(self, index: int) -> None:
        self._cursor = max(0, min(index, len(self.model) - 1))
        group = self.selected
        uid = None if group is None else group.uid
        if uid != self._uid:
            self._uid = uid
            if self.is_attached:
                self.post_message(self.Selected())

    def _go_to(self, index: int) -> None:
        self._select(index)
        self.show_cursor()
        self.refresh()

    def show_cursor(self) -> None:
        """Scroll to where the cursor is."""
        self.scroll_to_region(Area(0, self._cursor, 1, 1), animate=False, force=True)

    def action_move(self, by: int) -> None:
        """Go up or down."""
        self._go_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Go up or down by a screen."""
        self._go_to(self._cursor + by * max(1, self.size.height - 1))

    def action_end(self, last: int) -> None:
        """Go to the first or last row."""
        self._go_to(len(self.model) - 1 if last else 0)

    def action_fold(self) -> None:
        """Collapse the group, or go to the one it is below."""
        if not len(self.model):
            return
        row = self.model.row(self._cursor)
        if row.has_children and not row.is_collapsed and not self.model.wanted:
            self._collapse(row, collapsed=True)
            return
        parent = self.model.parent(self._cursor)
        if parent is not None:
            self._go_to(parent)

    def action_unfold(self) -> None:
        """Expand the group, or go to the first below it."""
        if not len(self.model):
            return
        row = self.model.row(self._cursor)
        if row.is_collapsed:
            self._collapse(row, collapsed=False)
        elif row.has_children:
            self._go_to(self._cursor + 1)

    def action_fold_or_unfold(self) -> None:
        """Collapse the group or expand it."""
        if len(self.model):
            row = self.model.row(self._cursor)
            if row.has_children:
                self._collapse(row, collapsed=not row.is_collapsed)

    def _collapse(self, row: Row, *, collapsed: bool) -> None:
        self.model.collapse(row.group.uid, collapsed=collapsed)
        self.refresh_rows()
        self.show_cursor()

    def on_click(self, event: Click) -> None:
        """Select the row under the mouse; a second click collapses or expands it."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = offset.y + self.scroll_offset.y
        if index >= len(self.model):
            return
        self._go_to(index)
        if event.chain == 2:
            self.action_fold_or_unfold()
