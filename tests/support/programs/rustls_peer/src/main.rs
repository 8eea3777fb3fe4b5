//! A client or server with rustls that says what it has written and read.
//!
//!     rustls_peer echo ADDRESS CONNECTIONS SIZE...   writes so many bytes and reads them back
//!     rustls_peer crossed ADDRESS CONNECTIONS SIZE...   encrypts for all, then sends in reverse order
//!     rustls_peer serve PORT CERTIFICATE KEY   answers HTTP requests; both files in DER
//!
//! `echo` waits for a line of input before each size. Prints a line of JSON for what it has moved:
//! local port, remote port, tls_send or tls_recv, hexadecimal digits.

use std::convert::TryFrom;
use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::SystemTime;
use std::{env, fs, thread};

use rustls::client::{ServerCertVerified, ServerCertVerifier};
use rustls::{Certificate, ClientConfig, ClientConnection, PrivateKey};
use rustls::{ServerConfig, ServerConnection, ServerName, StreamOwned};

const BODY: usize = 100_000;

type Client = StreamOwned<ClientConnection, TcpStream>;

struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &Certificate,
        _: &[Certificate],
        _: &ServerName,
        _: &mut dyn Iterator<Item = &[u8]>,
        _: &[u8],
        _: SystemTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
}

fn say(socket: &TcpStream, kind: &str, data: &[u8]) {
    let local = socket.local_addr().unwrap().port();
    let remote = socket.peer_addr().unwrap().port();
    let digits: String = data.iter().map(|byte| format!("{:02x}", byte)).collect();
    println!("[{}, {}, \"{}\", \"{}\"]", local, remote, kind, digits);
}

fn message(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|k| b'a' + ((number * 7 + k + k / 26) % 26) as u8).collect()
}

/// Connects; the session is moved after its handshake.
fn connect(address: &str) -> Client {
    let config = ClientConfig::builder()
        .with_safe_defaults()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(session, socket)
}

fn receive(client: &mut Client, size: usize) {
    let mut data = vec![0; size];
    client.read_exact(&mut data).unwrap();
    say(&client.sock, "tls_recv", &data);
}

fn echo(client: &mut Client, number: usize, size: usize) {
    let data = message(number, size);
    client.write_all(&data).unwrap();
    say(&client.sock, "tls_send", &data);
    receive(client, size);
}

fn crossed(clients: &mut Vec<Client>, size: usize) {
    let mut records = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let data = message(number, size);
        client.conn.writer().write_all(&data).unwrap();
        let mut encrypted = Vec::new();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut encrypted).unwrap();
        }
        say(&client.sock, "tls_send", &data);
        records.push(encrypted);
    }
    for (client, encrypted) in clients.iter_mut().zip(&records).rev() {
        client.sock.write_all(encrypted).unwrap();
    }
    for client in clients {
        receive(client, size);
    }
}

fn close(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
}

fn serve(port: u16, config: Arc<ServerConfig>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        let mut session = ServerConnection::new(config.clone()).unwrap();
        while session.is_handshaking() {
            if session.complete_io(&mut socket).is_err() {
                break;
            }
        }
        let server = StreamOwned::new(session, socket);
        thread::spawn(move || answer(server));
    }
}

fn answer(mut server: StreamOwned<ServerConnection, TcpStream>) {
    let mut data = vec![0; 65536];
    while let Ok(size) = server.read(&mut data) {
        if size == 0 {
            break;
        }
        say(&server.sock, "tls_recv", &data[..size]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY);
        let response = [head.into_bytes(), message(0, BODY)].concat();
        say(&server.sock, "tls_send", &response); // first: the client may be awaited, this not
        server.write_all(&response).unwrap();
    }
}

fn main() {
    let words: Vec<String> = env::args().collect();
    if words[1] == "serve" {
        let certificate = Certificate(fs::read(&words[3]).unwrap());
        let key = PrivateKey(fs::read(&words[4]).unwrap());
        let config = ServerConfig::builder()
            .with_safe_defaults()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        return serve(words[2].parse().unwrap(), Arc::new(config));
    }
    let count: usize = words[3].parse().unwrap();
    let sizes = words[4..].iter().map(|size| size.parse::<usize>().unwrap());
    let mut clients: Vec<Client> = (0..count).map(|_| connect(&words[2])).collect();
    println!("connected");
    let mut lines = io::stdin().lock().lines();
    for size in sizes {
        lines.next();
        if words[1] == "crossed" {
            crossed(&mut clients, size);
            continue;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            echo(client, number, size);
        }
    }
    clients.iter_mut().for_each(close);
}
