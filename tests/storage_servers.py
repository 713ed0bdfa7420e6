"""Real servers on the loopback interface that hold a hospital's files: moto's S3, and Python's own for HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

KEY, SECRET = "a-key-of-the-tests", "a-secret-of-the-tests"


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a server until the block ends; yield its address when it answers."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                with socket.socket() as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                raise AssertionError(f"no answer at port {port}: {log.read_text()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(log: Path, port: int) -> Iterator[str]:
    """Run moto's S3 server; what it holds lives as long as it."""
    program = str(Path(sys.executable).parent / "moto_server")
    with serving([program, "-H", "127.0.0.1", "-p", str(port)], port, log) as url:
        yield url


@contextmanager
def http_server(folder: Path, log: Path, port: int) -> Iterator[str]:
    """Serve a folder by Python's own server, whose log has a line for every request."""
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with serving([*command, "--directory", str(folder)], port, log) as url:
        yield url


def s3_environment(url: str) -> dict[str, str]:
    """Return what Snakemake's storage plugin is given by its environment, as docs/remote.md says."""
    return {
        "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": url,
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": KEY,
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY": SECRET,
    }


def upload(url: str, bucket: str, folder: Path, prefix: str) -> None:
    """Put all files of a folder into a bucket, which is made where it is missing."""
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.iterdir()):
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}")
