from __future__ import annotations

from trimtab_gui.selection import NOTHING, Selection, SelectionBus


def test_a_view_hears_of_others_and_knows_what_it_said_itself(qapp: object) -> None:
    bus = SelectionBus()
    heard: list[tuple[object, object]] = []
    bus.changed.connect(lambda selection, source: heard.append((selection, source)))
    me = object()
    chosen = Selection((1, 2), (0, 0), (1, 2))
    bus.select(chosen, me)
    assert heard == [(chosen, me)]


def test_two_views_that_answer_each_other_do_not_echo(qapp: object) -> None:
    bus = SelectionBus()
    count = 0

    def answer(selection: Selection, source: object) -> None:
        nonlocal count
        count += 1
        bus.select(Selection(selection.groups, selection.rows, selection.columns), answer)

    bus.changed.connect(answer)
    bus.select(Selection((3,), (0, 0), (1, 1)), None)
    assert count == 1


def test_clearing_selects_nothing(qapp: object) -> None:
    bus = SelectionBus()
    bus.select(Selection((3,), (0, 0), (1, 1)))
    bus.clear()
    assert bus.current == NOTHING
    assert not bus.current


def test_hovering_is_not_selecting(qapp: object) -> None:
    bus = SelectionBus()
    hovered: list[int] = []
    bus.hovered.connect(lambda group, source: hovered.append(group))
    bus.point_at(4)
    bus.point_at(4)
    bus.point_at(-1)
    assert hovered == [4, -1]
    assert bus.current == NOTHING
