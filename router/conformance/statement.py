"""The whole statement, in the order of PS3.2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pydicom
from pydantic import BaseModel

from router import __version__, registry
from router.conformance.objects import Created, created
from router.conformance.page import bullets, named, section, table
from router.conformance.receiving import acceptance, commits, policies
from router.conformance.samples import KINDS
from router.conformance.sending import dicom_destinations, initiation
from router.core import commitment, provenance
from router.dimse.contexts import VERIFICATION, storage_classes
from router.report import codes
from router.report.charset import known_terms
from router.settings import Settings


def statement(settings: Settings) -> str:
    """Markdown. The same configuration, version and dictionary of UIDs give the same text. Raises ImportError."""
    made = {name: created(name) for name in KINDS}
    body = (
        _introduction(),
        _networking(settings),
        section(2, "5 Media interchange", "Not supported."),
        _character_sets(),
        _security(settings),
        _annexes(settings, made),
    )
    contents = [line for part in body for line in part.splitlines() if re.match(r"##+ \d", line)]
    indented = [f"{'  ' * (line.index(' ') - 2)}- {line.lstrip('# ')}" for line in contents]
    return (
        "\n\n".join(
            (
                "# DICOM conformance statement",
                f"dicom-ai-router {__version__}, AE title `{settings.node.ae_title}`. Written by `router conformance` from the"
                " configuration and from the tables that the code decides by; a test proposes all of it to a running node. UIDs are"
                f" those of PS3.6 as pydicom {pydicom.__version__} knows them. Never edited by hand.",
                _overview(settings, made),
                section(2, "2 Table of contents", "\n".join(indented)),
                *body,
            )
        )
        + "\n"
    )


def _overview(settings: Settings, made: Mapping[str, Created]) -> str:
    sends = "yes" if dicom_destinations(settings) else "no"
    own = {one.sop_class_uid for one in made.values()}
    transfer = [
        (name or named(uid), f"`{uid}`", sends, "yes", "created, too" if uid in own else "")
        for uid, name in storage_classes().items()
    ]
    asks = any(getattr(one.options, "commitment", False) for one in settings.destinations.values())
    services = [("Verification", f"`{VERIFICATION}`", sends, "yes")]
    if commits(settings):
        services.append(
            (
                "Storage Commitment Push Model",
                f"`{commitment.SOP_CLASS_UID}`",
                "yes" if asks else "no",
                "yes" if settings.commitment.enabled else "no",
            )
        )
    return section(
        2,
        "1 Conformance statement overview",
        "A node between modalities and archives: it takes SOP instances by C-STORE, passes each on untouched, has those that its rules"
        " name looked at by a classifier, and adds objects of its own to their studies. Neither it nor any classifier is cleared for"
        " diagnosis; what it makes is marked NOT FOR DIAGNOSIS. No Query/Retrieve, worklist, MPPS, printing or DICOMweb.",
        "### Verification and workflow management",
        table(("SOP class", "UID", "User (SCU)", "Provider (SCP)"), services),
        "### Storage",
        table(("SOP class", "UID", "User (SCU)", "Provider (SCP)", "Remark"), transfer),
        "Private SOP classes and those that PS3.6 does not have are taken and passed on as well. Not taken: Storage SOP classes whose"
        " objects belong to no study.",
    )


def _introduction() -> str:
    return section(
        2,
        "3 Introduction",
        "For those who connect a device to this node, and for those who ask whether they can. Terms are those of PS3.1 to PS3.8. That"
        " two statements match does not prove that two systems work together: try it, with your own images.",
    )


def _networking(settings: Settings) -> str:
    node = settings.node
    return section(
        2,
        "4 Networking",
        section(3, "4.1 Implementation model"),
        section(4, "4.1.1 Application data flow", "```text\n" + "\n".join(_flow(settings)) + "\n```"),
        section(
            4,
            "4.1.2 Functional definition of AEs",
            f"One AE, `{node.ae_title}`. It listens, and answers Success when an instance is durable and everything that is owed for it is"
            " written down. It opens associations to deliver instances and objects of its own, to ask for storage commitment and to"
            " report on it, and to see whether a destination is there.",
        ),
        section(
            4,
            "4.1.3 Sequencing of real-world activities",
            bullets(
                (
                    "An instance is delivered only after it was received; deliveries do not wait for a classifier.",
                    "Within a series a destination gets originals in the order of their receipt.",
                    "Objects that we create follow when the classifier has answered; a summary when a study is quiet.",
                    "Commitment is asked of a destination after it has the instance.",
                )
            ),
        ),
        section(3, "4.2 AE specifications"),
        section(4, f"4.2.1 {node.ae_title}"),
        section(5, "4.2.1.1 SOP classes", "Those of section 1."),
        policies(settings),
        initiation(settings),
        acceptance(settings),
        section(
            3,
            "4.3 Network interfaces",
            "TCP/IP, version 4, or 6 where `node.host` is such an address; physical network as the operating system has it. Names are resolved by the operating system. TCP_NODELAY"
            " is set.",
        ),
        section(
            3,
            "4.4 Configuration",
            "One file, read at start. Values of this one, as far as DICOM peers see them; what they mean: [configuration](configuration.md).",
            table(("Parameter", "Value"), _parameters(settings)),
        ),
    )


def _flow(settings: Settings) -> Iterator[str]:
    names = [f"{one.options.ae_title}" for one in dicom_destinations(settings)]
    came = ", ".join(peer.ae_title for peer in settings.peers) or "any calling AE"
    yield f"receive   {came} -- C-STORE --> {settings.node.ae_title} --> spool and ledger"
    for name in names:
        yield f"deliver   {settings.node.ae_title} -- C-STORE --> {name}"
    for rule in settings.rules:
        for name in rule.results_to:
            target = getattr(settings.destinations[name].options, "ae_title", name)
            yield f"create    {settings.node.ae_title} ({', '.join(rule.results)}) -- C-STORE --> {target}"
    if settings.commitment.enabled:
        yield f"commit    {came} -- N-ACTION --> {settings.node.ae_title} -- N-EVENT-REPORT --> {came}"
    for one in dicom_destinations(settings):
        if one.options.commitment:
            name = one.options.ae_title
            yield f"commit    {settings.node.ae_title} -- N-ACTION --> {name} -- N-EVENT-REPORT --> {settings.node.ae_title}"
    yield f"verify    {came} -- C-ECHO --> {settings.node.ae_title}" + "".join(
        f"; {settings.node.ae_title} -- C-ECHO --> {name}" for name in names
    )


def _parameters(settings: Settings) -> Iterator[tuple[str, str]]:
    tables: list[tuple[str, BaseModel]] = [
        ("node", settings.node),
        ("spool", settings.spool),
        ("commitment", settings.commitment),
        ("summary", settings.summary),
    ]
    tables += [(f"peers[{number}]", peer) for number, peer in enumerate(settings.peers)]
    for name, model in tables:
        for key in type(model).model_fields:
            yield f"`{name}.{key}`", _shown(getattr(model, key))
    for destination in settings.destinations.values():
        for key in type(destination).model_fields:
            if key not in ("name", "options"):
                yield f"`destinations.{destination.name}.{key}`", _shown(getattr(destination, key))
        for key in type(destination.options).model_fields:
            yield f"`destinations.{destination.name}.{key}`", _shown(getattr(destination.options, key))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "any"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "not set" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _character_sets() -> str:
    return section(
        2,
        "6 Support of character sets",
        "Originals keep theirs, whatever it is. Objects that we create declare the Specific Character Set (0008,0005) of their image, and"
        " copy its texts byte for byte; where none is declared and there is other than ASCII, ISO_IR 192 or ISO_IR 100, whichever fits. Our"
        " own texts are ASCII. Understood:",
        ", ".join(f"`{term}`" for term in known_terms()),
    )


def _security(settings: Settings) -> str:
    return section(
        2,
        "7 Security",
        bullets(
            (
                "Secure transport profiles (PS3.15 Annex B): none; the DICOM port belongs inside the hospital's network.",
                "Calling and called AE titles and addresses are checked as section 4.2.1.4 says.",
                "Audit trail: PS3.15 A.5, to files"
                + (" and by syslog over TLS" if settings.audit.syslog is not None else "")
                + ", of looks at patients' data and of actions ([audit trail](operating/audit.md)).",
                "De-identification: none. Logs hold no patient data but UIDs and AE titles.",
            )
        ),
    )


def _annexes(settings: Settings, made: Mapping[str, Created]) -> str:
    asked = {name for rule in settings.rules for name in rule.results}
    strangers = sorted(asked - set(KINDS))
    rows = [
        (
            f"`{name}`",
            named(one.sop_class_uid),
            f"`{one.sop_class_uid}`",
            f"{named(one.transfer_syntax_uid)} `{one.transfer_syntax_uid}`",
            KINDS[name],
            "yes" if name in asked else "no",
        )
        for name, one in made.items()
    ]
    installed = registry.available("router.results")
    rows += [(f"`{name}`", f"see {installed[name].value.partition(':')[0]}", "", "", "", "yes") for name in strangers]
    return section(
        2,
        "8 Annexes",
        section(
            3,
            "8.1 IOD contents: objects that we create",
            "Each in a series of its own in the study of its image; SOP Instance and Series Instance UID follow from image, classifier and"
            " version, so that the same work makes the same object.",
            table(("Result", "SOP class", "UID", "Transfer syntax", "Made", "By this configuration"), rows),
            "Presence and origin of values were seen in objects made for this table; of each sequence the first item is shown.",
            *(_attributes(name, one) for name, one in made.items()),
        ),
        section(3, "8.2 Data dictionary of private attributes", "None are made."),
        section(
            3,
            "8.3 Coded terminology and templates",
            "Structured Reports are laid out by TID 1500 of PS3.16. Codes are of DCM, SCT, UCUM, RADLEX and UMLS; a classifier's label without"
            f" a code has one of the private scheme `{codes.PRIVATE_SCHEME}` ({provenance.MANUFACTURER}).",
            table(
                ("Label", "Finding", "Site"),
                [(row.label, _code(row.code), _code(row.site) if row.site else "") for row in codes.FINDINGS],
            ),
        ),
        section(3, "8.4 Greyscale image consistency", "Not supported: nothing is displayed."),
        section(3, "8.5 Standard extended, specialized and private SOP classes", "None are made; all are taken."),
        section(3, "8.6 Private transfer syntaxes", "None."),
    )


def _attributes(name: str, one: Created) -> str:
    return section(
        4,
        f"Result «{name}»: {named(one.sop_class_uid)}",
        table(
            ("Attribute", "Tag", "VR", "Value", "Presence"),
            [(row.path, row.tag, row.vr, row.value, row.presence) for row in one.attributes],
        ),
    )


def _code(code: codes.Code) -> str:
    return f"({code.value}, {code.scheme}, «{code.meaning}»)"
