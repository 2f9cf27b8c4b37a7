"""A backup that was taken under load is whole, clean, and can be served."""

import threading
from pathlib import Path

from blank import blank_sqlite
from harness import Collector, farebox
from spans import llm_span, protobuf_body


def test_a_backup_under_load_is_clean_and_goes_on_where_it_was_taken(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    span_total, stop = [0], threading.Event()
    bodies = []

    def send() -> None:
        while not stop.is_set():
            bodies.append(protobuf_body([llm_span() for _ in range(20)]))
            collector.export_grpc(bodies[-1])
            span_total[0] += 20

    sender = threading.Thread(target=send)
    sender.start()
    copy = tmp_path / "copy.db"
    try:
        done = farebox("backup", str(copy), "--database-url", collector.database_url)
        beside = sorted(path.name for path in copy.parent.glob(f"{copy.name}*"))
        assert beside == [copy.name], "the copy alone, without a lock or a log"
        again = farebox("backup", str(copy), "--database-url", collector.database_url)
    finally:
        stop.set()
        sender.join()
    assert done.returncode == 0, done.stderr
    assert "clean" in done.stdout
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    before = collector.wallet("ada")
    assert collector.stop() == 0
    collector.audit()

    restored = Collector(copy)
    held = len(restored.usage(limit=1000))
    assert 0 < held <= span_total[0]
    # Senders that still have spans from after the backup send them again.
    for body in bodies:
        restored.export_grpc(body)
    assert restored.wallet("ada")["spent_credits"] == before["spent_credits"]
    assert restored.stop() == 0
    restored.audit()
