"""When does a retraining begin by itself? After so many judgements, after so long, or at set times.

Pure: the plan, what has been said since the last retraining, and the time come in; whether to begin and a sentence for
a person come out. Whether there is enough to learn from is `training.trigger`'s to say, and without a new judgement
nothing begins. Times of day are those of `zone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

from cronsim import CronSim, CronSimError

_HOUR = 3600.0


@dataclass(frozen=True)
class Plan:
    """What makes a retraining begin; 0 and "" are never. `after` counts judgements, `hours` passes since the last one
    began, `cron` is an expression of five fields, `quiet` two times of day between which nothing begins, such as
    ``22:00-07:00``. Raises `ValueError` for a `cron` or `quiet` that cannot be read."""

    after: int = 0
    hours: float = 0.0
    cron: str = ""
    quiet: str = ""

    def __post_init__(self) -> None:
        if self.cron:
            try:
                CronSim(self.cron, datetime(2026, 1, 1))
            except CronSimError as error:
                raise ValueError(
                    f"The cron expression is {self.cron!r} ({error}); expected five fields, such as '0 3 * * 0' for "
                    "Sundays at three."
                ) from error
        _rest_of(self.quiet)

    @property
    def by_itself(self) -> bool:
        """Whether anything but a person begins a retraining."""
        return bool(self.after or self.hours or self.cron)


@dataclass(frozen=True)
class Due:
    """Whether a retraining begins now, and when the next one does, in words."""

    now: bool
    sentence: str


def due(plan: Plan, *, judged: int, last: float, now: float, zone: tzinfo | None = None) -> Due:
    """What `plan` says at `now`, with so many judgements since the last retraining began at `last` (Unix seconds; for
    none, when the studio was opened)."""
    if not plan.by_itself:
        return Due(False, "Retraining begins when somebody asks for it.")
    here = datetime.fromtimestamp(now, zone)
    times = _times(plan, last=last, zone=zone)
    reached = (plan.after and judged >= plan.after) or any(when <= here for when in times)
    if not (reached and judged):
        return Due(False, f"Retrains by itself {_conditions(plan, judged, times, here)}.")
    rest = _rest_of(plan.quiet)
    if rest is not None and _within(rest, here.time()):
        return Due(False, f"A retraining is due and begins at {rest[1]:%H:%M}, after the quiet hours.")
    return Due(True, "A retraining is due and begins now.")


def _times(plan: Plan, *, last: float, zone: tzinfo | None) -> list[datetime]:
    """The first moment after `last` of each of the plan's clocks."""
    began = datetime.fromtimestamp(last, zone)
    found = [began + timedelta(hours=plan.hours)] if plan.hours else []
    if plan.cron:
        found.append(next(CronSim(plan.cron, began)))
    return found


def _conditions(plan: Plan, judged: int, times: list[datetime], here: datetime) -> str:
    parts = []
    if plan.after:
        more = plan.after - judged
        parts.append(f"after {more} more judgement{'s' if more != 1 else ''}")
    if times:
        when = min(times)
        parts.append("with the next judgement" if when <= here else f"on {when:%A, %d %B at %H:%M}")
    return " or ".join(parts)


def _rest_of(quiet: str) -> tuple[time, time] | None:
    if not quiet:
        return None
    try:
        begin, end = (time.fromisoformat(part.strip()) for part in quiet.split("-"))
    except ValueError as error:
        raise ValueError(
            f"The quiet hours are {quiet!r}; expected two times of day, such as 22:00-07:00."
        ) from error
    return begin, end


def _within(rest: tuple[time, time], at: time) -> bool:
    begin, end = rest
    return begin <= at < end if begin <= end else at >= begin or at < end
