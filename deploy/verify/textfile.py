"""What `huanquan verify` found, for Prometheus: a file that node_exporter's textfile collector reads."""

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from deploy.verify import Report


def write_metrics(report: Report, file: Path) -> None:
    """Write the file whole, or not at all. Raises OSError."""
    registry = CollectorRegistry()
    violations = Gauge("huanquan_verify_violations", "Broken records found", ["invariant"], registry=registry)
    checked = Gauge("huanquan_verify_checked", "Records looked at", ["invariant"], registry=registry)
    for finding in report.findings:
        violations.labels(finding.name).set(finding.violations)
        checked.labels(finding.name).set(finding.checked)
    finished = Gauge("huanquan_verify_finished_seconds", "When the look ended, as Unix time", registry=registry)
    finished.set(time.time())
    write_to_textfile(str(file), registry)
