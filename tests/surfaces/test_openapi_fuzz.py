"""The whole OpenAPI document, tried by schemathesis: no request causes a server error."""

import subprocess
import sys
from pathlib import Path

from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from harness import Collector
from spans import llm_span, protobuf_body

EXAMPLES = 3


def test_nothing_that_is_sent_to_the_api_makes_it_fail(tmp_path: Path) -> None:
    key = new_token()
    collector = Collector(blank_sqlite(tmp_path), bootstrap_key=key)
    try:
        sent = collector.export_http(protobuf_body([llm_span(wallet="ada")]), authorization=f"Bearer {key}")
        assert sent.status_code == 200
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{collector.api_url}/openapi.json"]
        command += ["--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--seed", "1"]
        command += ["--max-examples", str(EXAMPLES), "--header", f"Authorization: Bearer {key}"]
        tried = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert tried.returncode == 0, tried.stdout[-8000:] + tried.stderr[-2000:]
        assert "No test cases" not in tried.stdout
        assert collector.stop() == 0
        collector.audit()
    finally:
        collector.close()
