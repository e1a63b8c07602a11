"""The association that a batch goes by: there is always one, not always the same; and what waits on it for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.core.ports import Delivery
from router.deliver.association import Address, Association
from router.deliver.command import Response
from router.deliver.fragments import Stream
from router.deliver.negotiation import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One delivery of a batch."""

    index: int
    """In the batch."""
    delivery: Delivery


class Line:
    """Used by one thread. Its methods raise PeerUnreachable and AssociationRejected as an association does."""

    def __init__(
        self, address: Address, contexts: Sequence[Context], *, operations_max: int, parked: Association | None
    ) -> None:
        """`parked`: one that is open already."""
        self._address = address
        self._contexts = contexts
        self._operations_max = operations_max
        self._waiting: dict[int, tuple[Item, Delivery]] = {}
        """Message ID -> what awaits its answer, and the form in which it was sent; in the order of sending."""
        self._in_hand: Item | None = None
        self.proven = False
        """False while it may be one that the peer gave up before we used it again."""
        if parked is None:
            self.open()
        else:
            self.association = parked

    def open(self) -> None:
        """A new one."""
        self.association = Association(self._address, self._contexts, operations_max=self._operations_max)
        self.proven = True

    def one_by_one(self) -> None:
        """From now on each instance waits for the answer to the one before: so that it is known which one breaks things."""
        self._operations_max = 1

    @property
    def waits(self) -> bool:
        """True when something has been sent that is not answered."""
        return bool(self._waiting)

    def has_room(self) -> bool:
        """True when one more may be sent before an answer has come."""
        return len(self._waiting) < min(self._operations_max, self.association.operations_max)

    def send(self, item: Item, form: Delivery, data_set: Stream) -> None:
        """`form`: the delivery as it is, or its uncompressed form. Raises what the stream raises, too: see `cut_off`."""
        self._in_hand = item
        instance = form.instance
        message_id = self.association.request_store(
            context_id=self.association.accepted[context_of(form)],
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            data_set=data_set,
        )
        self._in_hand = None
        self._waiting[message_id] = item, form

    def answer(self) -> tuple[Item, Delivery, Response]:
        """The next answer, and to what it is one."""
        response = self.association.next_response()
        self.proven = True
        item, form = self._waiting.pop(response.message_id)
        return item, form, response

    def abandon(self) -> list[Item]:
        """Ends the association at once; what was sent by it and not answered, the one in hand last."""
        self.association.abort()
        items = [item for item, _ in self._waiting.values()]
        if self._in_hand is not None:
            items.append(self._in_hand)
        self._waiting.clear()
        self._in_hand = None
        return items


def context_of(delivery: Delivery) -> Context:
    """The presentation context that carries it."""
    return delivery.instance.sop_class_uid, delivery.instance.transfer_syntax_uid
