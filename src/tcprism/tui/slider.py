"""Slider: shows and sets the current time in a recording."""

from __future__ import annotations

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tcprism.events.units import duration


class Slider(Widget):
    """A line with a knob; a click moves it."""

    DEFAULT_CSS = "Slider { height: 1; background: $panel; color: $foreground; }"

    place: reactive[float] = reactive(0.0)
    label: reactive[str] = reactive("")

    class Moved(Message):
        """The knob was put elsewhere: `place` is 0 at the start and 1 at the end."""

        def __init__(self, place: float) -> None:
            super().__init__()
            self.place = place

    def show(self, span: tuple[int, int], now_ns: int, playing: bool) -> None:
        """Show a moment of a span of time."""
        length = max(span[1] - span[0], 1)
        self.place = (now_ns - span[0]) / length
        sign = ">" if playing else "="
        at, whole = duration((now_ns - span[0]) / 1000), duration(length / 1000)
        self.label = f" {sign} {at} of {whole} "

    @property
    def _track(self) -> int:
        return max(1, self.size.width - len(self.label) - 1)

    def render_line(self, y: int) -> Strip:
        knob = min(round(self.place * (self._track - 1)), self._track - 1)
        line = "━" * knob + "●" + "─" * (self._track - 1 - knob)
        return Strip([Segment(self.label + line, self.rich_style)]).adjust_cell_length(
            self.size.width, self.rich_style
        )

    def on_click(self, event: events.Click) -> None:
        place = (event.x - len(self.label)) / max(1, self._track - 1)
        self.post_message(self.Moved(min(max(place, 0.0), 1.0)))
