"""The outcome of ``gate``, and the files that other tools read: JUnit XML, SARIF, Markdown and a badge."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from advkit import __version__
from advkit.core import files
from advkit.core.errors import readable
from advkit.evaluation.gate.result import Finding, GateResult
from advkit.report.outcome import Outcome, Table

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def gate(result: GateResult, written: tuple[Path, ...], folder: Path) -> Outcome:
    """The outcome of ``advkit gate``."""
    warning = "" if result.trusted else "A check doubts a number, so it does not count as reached."
    rows = tuple(
        (one.requirement, one.bar.replace("_", " "), "PASS" if one.passed else "FAIL", one.detail)
        for one in result.findings
    )
    return Outcome(
        title=f"gate of {result.model}",
        judged=True,
        sentences=(result.sentence, *([warning] if warning else [])),
        warning=warning,
        tables=(Table("requirements", ("requirement", "bar", "", "found"), rows),),
        files=(*written, folder),
        stored=result,
        passed=result.passed,
    )


def write(folder: Path, result: GateResult) -> tuple[Path, ...]:
    """Writes ``junit.xml``, ``gate.sarif``, ``summary.md`` and ``badge.svg``."""
    texts = {
        "junit.xml": junit(result),
        "gate.sarif": files.json_text(sarif(result), indent=2) + "\n",
        "summary.md": markdown(result),
        "badge.svg": badge(result),
    }
    for name, text in texts.items():
        files.write_text(folder / name, readable(text))
    return tuple(folder / name for name in texts)


def junit(result: GateResult) -> str:
    """JUnit XML: a test suite, with a test case for each bar."""
    counts = {"tests": str(len(result.findings)), "failures": str(len(result.failed))}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": "advkit gate", **counts, "errors": "0", "skipped": "0"}
    )
    for one in result.findings:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _xml(one.requirement), "name": one.bar}
        )
        if not one.passed:
            said = _xml(one.detail)
            failure = ElementTree.SubElement(case, "failure", {"message": said, "type": one.bar})
            failure.text = said
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _xml(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return re.sub("[\\0-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]", "\ufffd", text)


def sarif(result: GateResult) -> dict[str, object]:
    """SARIF 2.1.0: a result for each bar, at the first policy."""
    bars = list(dict.fromkeys(one.bar for one in result.findings))
    place = {"artifactLocation": {"uri": quote(readable(Path(result.policy[0]).as_posix()))}}
    results = [
        {
            "ruleId": one.bar,
            "ruleIndex": bars.index(one.bar),
            "kind": "pass" if one.passed else "fail",
            "level": "none" if one.passed else "error",
            "message": {"text": f"{one.requirement}: {one.detail}"},
            "locations": [{"physicalLocation": place}],
        }
        for one in result.findings
    ]
    rules = [{"id": bar, "shortDescription": {"text": f"the bar of {bar}"}} for bar in bars]
    driver = {"name": "advkit", "version": __version__, "rules": rules}
    return {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def markdown(result: GateResult) -> str:
    """A summary for the page of a CI job."""
    lines = [
        f"## {'✅' if result.passed else '❌'} {cell(result.model)}: {_verdict(result)}",
        "",
        "| requirement | bar | | found |",
        "| --- | --- | --- | --- |",
        *(_row(one) for one in result.findings),
    ]
    return "\n".join(lines) + "\n"


def _row(one: Finding) -> str:
    verdict = "pass" if one.passed else "**fail**"
    return f"| {cell(one.requirement)} | {one.bar} | {verdict} | {cell(one.detail)} |"


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _verdict(result: GateResult) -> str:
    return "passed" if result.passed else "failed" if result.trusted else "doubted"


def badge(result: GateResult) -> str:
    """A badge as SVG: robustness passed, failed or doubted."""
    verdict = _verdict(result)
    colour = {"passed": "#2e7d32", "failed": "#b3261e", "doubted": "#8a5a00"}[verdict]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="150" height="20" role="img" '
        f'aria-label="robustness: {verdict}"><title>robustness: {verdict}</title>'
        f'<rect width="82" height="20" fill="#4a4f55"/><rect x="82" width="68" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="41" y="14">robustness</text><text x="116" y="14">{verdict}</text></g></svg>\n'
    )
