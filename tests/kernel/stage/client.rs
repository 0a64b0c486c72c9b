//! The connecting side.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::{DEADLINE, RETRANSMITTED};

/// Connects, sends, and reads the answer to its end.
pub(crate) fn ask(server: SocketAddr, request: &str) -> io::Result<String> {
    exchange(connect(server)?, request)
}

/// Sends, and reads the answer to its end.
pub(crate) fn exchange(mut stream: TcpStream, request: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(RETRANSMITTED))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    connect_with(server, |_| Ok(()))
}

/// Connects a socket that was prepared first.
pub(crate) fn connect_with(
    server: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    prepare(&socket)?;
    socket.connect_timeout(&server.into(), DEADLINE)?;
    Ok(socket.into())
}
