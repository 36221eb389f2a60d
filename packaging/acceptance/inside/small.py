"""The smallest worker: one answer, to show that many cost nothing. Without imports but one, as an emulated computer starts 300 of them."""

import socket

listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsmall\n")
