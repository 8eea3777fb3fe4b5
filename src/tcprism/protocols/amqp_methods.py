"""The methods of AMQP 0-9-1: who sends them, what answers them, and where their names are."""

from __future__ import annotations

from typing import NamedTuple

Ids = tuple[int, int]


class Method(NamedTuple):
    """How a client's method is answered: its name, and where it says to whom it is."""

    name: str
    answers: tuple[Ids, ...] = ()
    skip: int = 0  # bytes of arguments before the names
    names: int = 0  # the first is shown
    no_wait: int = 0  # the bit behind them that asks for no answer


ASKED: dict[Ids, Method] = {
    (10, 11): Method("connection.start-ok", ((10, 30),)),
    (10, 40): Method("connection.open", ((10, 41),), 0, 1),
    (10, 50): Method("connection.close", ((10, 51),)),
    (20, 10): Method("channel.open", ((20, 11),)),
    (20, 20): Method("channel.flow", ((20, 21),)),
    (20, 40): Method("channel.close", ((20, 41),)),
    (40, 10): Method("exchange.declare", ((40, 11),), 2, 2, 16),
    (40, 20): Method("exchange.delete", ((40, 21),), 2, 1, 2),
    (40, 30): Method("exchange.bind", ((40, 31),), 2, 3, 1),
    (40, 40): Method("exchange.unbind", ((40, 51),), 2, 3, 1),
    (50, 10): Method("queue.declare", ((50, 11),), 2, 1, 16),
    (50, 20): Method("queue.bind", ((50, 21),), 2, 3, 1),
    (50, 30): Method("queue.purge", ((50, 31),), 2, 1, 1),
    (50, 40): Method("queue.delete", ((50, 41),), 2, 1, 4),
    (50, 50): Method("queue.unbind", ((50, 51),), 2, 1),
    (60, 10): Method("basic.qos", ((60, 11),)),
    (60, 20): Method("basic.consume", ((60, 21),), 2, 2, 8),
    (60, 30): Method("basic.cancel", ((60, 31),), 0, 1, 1),
    (60, 70): Method("basic.get", ((60, 71), (60, 72)), 2, 1),
    (60, 110): Method("basic.recover", ((60, 111),)),
    (85, 10): Method("confirm.select", ((85, 11),), 0, 0, 1),
    (90, 10): Method("tx.select", ((90, 11),)),
    (90, 20): Method("tx.commit", ((90, 21),)),
    (90, 30): Method("tx.rollback", ((90, 31),)),
}
ANSWERS = {answer: asked for asked, method in ASKED.items() for answer in method.answers}
PUBLISH, RETURN, DELIVER = (60, 40), (60, 50), (60, 60)
GET_OK, GET_EMPTY = (60, 71), (60, 72)
ACKED, REJECTED, NACKED = (60, 80), (60, 90), (60, 120)
OPEN, CLOSE, CLOSED, END = (20, 10), (20, 40), (20, 41), (10, 50)
CANCEL, CONFIRM, TX = (60, 30), (85, 10), (90, 10)
OF_BOTH = {(20, 20), (20, 21), (20, 40), (20, 41), (10, 50), (10, 51), ACKED, NACKED}
_OF_CLIENT = {*ASKED, PUBLISH, REJECTED, (10, 21), (10, 31), (10, 70), (60, 100)} - OF_BOTH
_OF_SERVER = {
    *ANSWERS,
    RETURN,
    DELIVER,
    (10, 10),
    (10, 20),
    (10, 60),
    (10, 61),
    (10, 71),
    (60, 30),
} - OF_BOTH
OF_SIDE = (_OF_CLIENT, _OF_SERVER)
