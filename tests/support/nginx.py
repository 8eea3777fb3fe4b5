"""An nginx of our own, and what it logs."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Netns

NGINX = """\
worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;
events {{ worker_connections 512; }}
http {{
  log_format sizes '- "$request" $status $request_length $bytes_sent'
    ' $request_time $upstream_response_time';
  access_log {folder}/access.log sizes; root {folder}; client_body_temp_path {folder}/a;
  proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d;
  scgi_temp_path {folder}/e;
  server {{ listen {address}:8080 {protocol}; keepalive_requests 100000; {settings}
    location /hello {{ return 200 "hello"; }} location /broken {{ return 503; }}
    location /none {{ return 404; }} location /shop {{ proxy_pass http://127.0.0.1:8081; }}
    location /shop.Cart/ {{ grpc_pass grpc://127.0.0.1:8081; }} }}
}}
"""


@contextmanager
def nginx(
    netns: Netns,
    folder: Path,
    protocol: str = "",
    tls: tuple[str, str] | None = None,
    set_cookie: str = "",
    address: str = "127.0.0.1",
) -> Iterator[Path]:
    """Run nginx, which speaks HTTP/1 or "http2"; yield its access log.

    What is below /shop it asks a server at port 8081, by gRPC for the service shop.Cart.
    With a certificate and its key, inside TLS. Responses set a cookie, if there is one.
    """
    if not shutil.which("nginx"):
        pytest.skip("needs the package nginx-light")
    folder.chmod(0o755)
    settings = ""
    if tls:
        protocol += " ssl"
        settings = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};"
    if set_cookie:
        settings += f' add_header Set-Cookie "{set_cookie}";'
    text = NGINX.format(folder=folder, address=address, protocol=protocol, settings=settings)
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        netns.command("nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf")
    )
    try:
        netns.await_state("0A")
        yield folder / "access.log"
    finally:
        process.terminate()
        process.wait()
