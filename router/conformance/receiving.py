"""The acceptor: who may come, what is agreed, what is done with what comes."""

from __future__ import annotations

from collections.abc import Iterator

from router.conformance.page import bullets, hexadecimal, section, table
from router.core import commitment
from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse import peers, slots, status
from router.dimse.contexts import COMMITMENT_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES, VERIFICATION
from router.dimse.limits import BYTES_PER_SECOND_MIN, OPERATIONS_MAX
from router.receive.walk import NESTING_MAX
from router.settings import NodeSettings, PeerSettings, Settings


def commits(settings: Settings) -> bool:
    """Whether contexts of Storage Commitment are accepted: for those who ask us, or those who answer us."""
    return settings.commitment.enabled or any(
        getattr(destination.options, "commitment", False) for destination in settings.destinations.values()
    )


def policies(settings: Settings) -> str:
    """4.2.1.2: what holds of every association."""
    node = settings.node
    asked = settings.destinations.values()
    longest = max((getattr(destination.options, "operations_max", 1) for destination in asked), default=1)
    granted = (
        f"up to {OPERATIONS_MAX} operations that the requestor invokes, 1 that we invoke; served in order"
        if node.wire == "fast"
        else 'not granted (`node.wire = "pynetdicom"`)'
    )
    return section(
        5,
        "4.2.1.2 Association policies",
        table(
            ("Policy", "Value"),
            [
                ("Application context name", f"`{peers.APPLICATION_CONTEXT}` (PS3.7 A.2.1)"),
                ("Maximum length of a PDU that we receive, announced as acceptor", f"{node.pdu_byte_count_max} bytes"),
                ("Associations accepted at one time", node.associations_max),
                ("Associations accepted at one time from one address", node.associations_per_peer_max),
                ("Asynchronous operations window, as acceptor", granted),
                ("Asynchronous operations window, as requestor", f"asked for: at most {longest} invoked, 1 performed"),
                ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
                ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
            ],
        ),
        f"When one of the two limits is reached, the association that has been idle the longest, but for {slots.SPARED_IDLE_S:g} s"
        " at least, is aborted to make room; when none has been, the new one is rejected.",
    )


def acceptance(settings: Settings) -> str:
    """4.2.1.4: association acceptance policy."""
    node = settings.node
    return section(
        5,
        "4.2.1.4 Association acceptance policy",
        _who(settings),
        table(
            ("Rejected when", "Result", "Source", "Reason/Diag."),
            [(one.reason, one.result, one.source, one.diagnostic) for one in dict.fromkeys(_rejections(settings))],
        ),
        f"Within an association: a PDU that has begun must be whole within {node.pdu_timeout_s:g} s plus its length at"
        f" {BYTES_PER_SECOND_MIN} bytes a second; after {node.idle_timeout_s:g} s without anything, and where the peer breaks"
        " the protocol, it is aborted.",
        _contexts(settings),
        _negotiation(settings),
        _storage(settings),
        _commitment(settings),
        section(6, "SOP specific conformance: Verification", "C-ECHO is answered with 0x0000."),
    )


def _who(settings: Settings) -> str:
    node = settings.node
    called = "any called AE title" if node.any_called_ae else f"called AE title `{node.ae_title}`"
    if not settings.peers:
        return f"Accepted: {called}, any calling AE title, from any address."
    listed = ", ".join(
        f"`{peer.ae_title}`" + (f" from {', '.join(map(str, peer.hosts))}" if peer.hosts else "")
        for peer in settings.peers
    )
    answering = (
        " A destination that is asked for storage commitment and is not listed gets contexts of that and of Verification only."
        if any(getattr(destination.options, "commitment", False) for destination in settings.destinations.values())
        else ""
    )
    return f"Accepted: {called}; calling AE titles {listed}.{answering}"


def _rejections(settings: Settings) -> Iterator[peers.Rejection]:
    """Asked of the code that rejects."""
    node: NodeSettings = settings.node
    yield peers.PROTOCOL_VERSION
    yield peers.APPLICATION_CONTEXT_NAME
    stranger = "\0"
    listed: tuple[PeerSettings, ...] = tuple(settings.peers)
    for called, calling in ((stranger, stranger), (node.ae_title, stranger)):
        said = peers.rejection(
            called_ae_title=called,
            calling_ae_title=calling,
            host="192.0.2.0",
            node=node,
            peers=listed,
        )
        if said is not None:
            yield said
    yield peers.LIMIT_REACHED
    yield peers.DRAINING


def _contexts(settings: Settings) -> str:
    plain = ", ".join(f"`{uid}`" for uid in COMMITMENT_TRANSFER_SYNTAXES)
    rows = [
        ("Every SOP class of the table of section 1 under «Storage»", "the transfer syntaxes below", "SCP", "none"),
        ("Private SOP classes, and those that are not in PS3.6", "the transfer syntaxes below", "SCP", "none"),
        (f"Verification `{VERIFICATION}`", "the transfer syntaxes below", "SCP", "none"),
    ]
    if commits(settings):
        rows.append(
            (f"Storage Commitment Push Model `{commitment.SOP_CLASS_UID}`", plain, "SCP, SCU", "role selection")
        )
    return section(
        6,
        "Accepted presentation contexts",
        table(("Abstract syntax", "Transfer syntax", "Role", "Ext. neg."), rows),
        "Accepted transfer syntaxes:",
        table(("Transfer syntax", "UID"), [(name, f"`{uid}`") for uid, name in TRANSFER_SYNTAXES.items()]),
        "Of several in one presentation context the requestor's first one is accepted, but explicit VR little endian rather than"
        " implicit where both are proposed. Other abstract syntaxes are answered with 3 (abstract syntax not supported), contexts"
        " with none of these transfer syntaxes with 4 (transfer syntaxes not supported).",
    )


def _negotiation(settings: Settings) -> str:
    role = (
        "SCP/SCU role selection is granted for Storage Commitment Push Model as it is asked for, because destinations that report"
        " to us are its SCP; it is not answered for other classes, whose default roles hold."
        if commits(settings)
        else "SCP/SCU role selection is not answered: the default roles hold."
    )
    return section(
        6,
        "Extended negotiation and user identity",
        bullets(
            (
                role,
                "SOP Class Extended Negotiation, SOP Class Common Extended Negotiation: not answered; C-STORE at level 2 (full).",
                "User identity: not answered; nobody is refused or accepted for it.",
            )
        ),
    )


def _storage(settings: Settings) -> str:
    return section(
        6,
        "SOP specific conformance: Storage",
        "Level 2 (full): every attribute is kept, private ones too, and the data set is passed on byte for byte. Digital signatures"
        " are neither checked nor touched. An instance is kept until every destination has it, and for"
        f" {settings.spool.retention_s:g} s after that; this is no archive. Data sets up to {settings.node.dataset_byte_count_max}"
        f" bytes, nested up to {NESTING_MAX} deep.",
        table(
            ("Status of C-STORE", "Meaning", "When"),
            [(hexadecimal(code), _meaning(code), when) for code, when in status.STORE_ANSWERS.items()],
        ),
        "Error Comment (0000,0902) says why. The same SOP Instance UID with other bytes is taken, kept apart, and shown.",
    )


def _commitment(settings: Settings) -> str:
    if not commits(settings):
        return ""
    asked = settings.commitment
    parts = []
    if asked.enabled:
        when = {
            "durable": "its bytes are durable here and its delivery is owed",
            "delivered": "every destination of its rules has it",
        }[asked.when]
        reasons = (
            commitment.PROCESSING_FAILURE,
            commitment.NO_SUCH_INSTANCE,
            commitment.CLASS_INSTANCE_CONFLICT,
            commitment.DUPLICATE_TRANSACTION_UID,
        )
        parts = [
            f"As SCP, an instance is committed when {when}. N-EVENT-REPORT comes on the association of the request if that stays open"
            f" for {asked.linger_s:g} s, else on one that we open, for up to {asked.report_for_s:g} s. Failure Reasons: "
            + ", ".join(commitment.describe_reason(reason) for reason in reasons)
            + ".",
        ]
    parts.append("As SCU, N-EVENT-REPORT is taken on any association of a destination that was asked.")
    return section(
        6,
        "SOP specific conformance: Storage Commitment Push Model",
        *parts,
        table(
            ("Status of N-ACTION and N-EVENT-REPORT", "Meaning", "When"),
            [(hexadecimal(code), _meaning(code), when) for code, when in status.SERVICE_ANSWERS.items()],
        ),
    )


def _meaning(code: int) -> str:
    return status.describe(code).partition("(")[2].rstrip(")")
