"""What a network gives a program, on loopback, for release/alone.sh: a DNS server, an HTTPS server, and a proxy.

    servers.py FOLDER CERTIFICATE KEY NAMESERVER

serves FOLDER over HTTPS on a free port of 127.0.0.1, answers on NAMESERVER:53 that by-dns.example is there, and forwards
CONNECT of by-proxy.example (which no name service knows) on another port. Prints "HTTPS-PORT PROXY-PORT" when all listen.
"""

import http.server
import socket
import ssl
import struct
import sys
import threading

folder, certificate, key, nameserver = sys.argv[1:]
KNOWN = "by-dns.example"


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args):
        super().__init__(*args, directory=folder)

    def log_message(self, *args):
        pass


def dns(udp):
    """One question, one answer (RFC 1035): A of the known name; no data for its AAAA; NXDOMAIN for all else."""
    while True:
        query, client = udp.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : at + 5]
        (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
        known = ".".join(labels).lower() == KNOWN
        answer = b""
        if known and kind == 1:
            answer = struct.pack(">HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton("127.0.0.1"))
        head = struct.pack(">2sHHHHH", query[:2], 0x8580 | (0 if known else 3), 1, 1 if answer else 0, 0, 0)
        udp.sendto(head + question + answer, client)


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(client, https):
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data:
            return
        head += data
    if not head.startswith(b"CONNECT by-proxy.example:"):
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        client.close()
        return
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    server = socket.create_connection(("127.0.0.1", https))
    threading.Thread(target=copy, args=(client, server), daemon=True).start()
    copy(server, client)


def proxy(listener, https):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=relay, args=(client, https), daemon=True).start()


files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
files.socket = context.wrap_socket(files.socket, server_side=True)
https_port = files.server_address[1]
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind((nameserver, 53))
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=dns, args=(names,), daemon=True).start()
threading.Thread(target=proxy, args=(listener, https_port), daemon=True).start()
print(https_port, listener.getsockname()[1], flush=True)
files.serve_forever()
