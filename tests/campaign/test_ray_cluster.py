"""Shards on a cluster of Ray: two nodes on this machine, an actor that is killed, and a second run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_detector import write_detector

from boxless.shards import predict_manifest, write_manifest

RAY = """
import os, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from boxless.shards import predict_manifest

run, manifest, out, kill = sys.argv[1:]

def kill_an_actor():
    import signal
    while len(list(Path(out).glob("part-*"))) < 3:
        time.sleep(0.005)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = os.environ["MARK"].encode() in (folder / "environ").read_bytes()
            # The command line of this very process has the name too, within the script.
            if ours and (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                os.kill(int(folder.name), signal.SIGKILL)
                print("killed", flush=True)
                return
        except OSError:
            continue

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address)
if kill == "kill":
    threading.Thread(target=kill_an_actor, daemon=True).start()
try:
    summary = predict_manifest(run, manifest, out, engine="ray", shard_size=1)
    print("shards", summary.shards, "there", summary.there, flush=True)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.campaign
def test_a_cluster_and_a_killed_actor_end_in_the_same_bytes(demo: Path, tmp_path: Path, monkeypatch):
    detector, manifest = write_detector(tmp_path / "detector.onnx"), tmp_path / "images.parquet"
    write_manifest(str(demo / "JPEGImages"), str(manifest))
    predict_manifest(str(detector), str(manifest), str(tmp_path / "local"), shard_size=1)
    expected = {file.name: file.read_bytes() for file in (tmp_path / "local").iterdir()}
    assert len(expected) == 23
    monkeypatch.setenv("MARK", f"boxless-{time.time_ns()}")
    for out, kill in (("whole", "no"), ("disturbed", "kill")):
        words = [detector, manifest, tmp_path / out, kill]
        done = subprocess.run(
            [sys.executable, "-c", RAY, *map(str, words)], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert "shards 22 there 0" in done.stdout and ("killed" in done.stdout) == (kill == "kill")
        assert {file.name: file.read_bytes() for file in (tmp_path / out).iterdir()} == expected
    (tmp_path / "whole" / "part-00000007.parquet").unlink()
    again = predict_manifest(str(detector), str(manifest), str(tmp_path / "whole"), shard_size=1)
    assert (again.shards, again.there) == (1, 21)
    assert {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()} == expected
