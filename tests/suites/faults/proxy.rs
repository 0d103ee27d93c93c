//! [`Proxy`]: a TCP proxy in front of Redis that can be pointed elsewhere, cut
//! its connections, or hold them so that they look alive and carry nothing.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What all connections of a proxy obey. Connections are numbered.
#[derive(Debug, Clone, Copy)]
struct Orders {
    target: SocketAddr,
    /// New connections are closed at once.
    refuses: bool,
    /// Connections with a lower number are closed.
    cut_below: u64,
    /// Connections with a lower number carry nothing, for ever.
    hold_below: u64,
    next: u64,
}

/// A listening proxy; ends with all its connections when dropped.
pub(crate) struct Proxy {
    addr: SocketAddr,
    orders: watch::Sender<Orders>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own. Within a `LocalSet`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has free ports");
        let addr = listener.local_addr().expect("it is bound");
        let orders = watch::Sender::new(Orders {
            target,
            refuses: false,
            cut_below: 0,
            hold_below: 0,
            next: 0,
        });
        let accepting = tokio::task::spawn_local(accept(listener, orders.clone()));
        Self {
            addr,
            orders,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Sends new connections to `target` and cuts those there are.
    pub(crate) fn point_to(&self, target: SocketAddr) {
        self.orders.send_modify(|orders| {
            orders.target = target;
            orders.cut_below = orders.next;
        });
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.orders
            .send_modify(|orders| orders.cut_below = orders.next);
    }

    /// Lets all connections there are carry nothing any more, without a word:
    /// half-open.
    pub(crate) fn hold(&self) {
        self.orders
            .send_modify(|orders| orders.hold_below = orders.next);
    }

    /// Whether new connections are refused.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.orders.send_modify(|orders| orders.refuses = refuses);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, orders: watch::Sender<Orders>) {
    while let Ok((client, _)) = listener.accept().await {
        if orders.borrow().refuses {
            continue;
        }
        let mut number = 0;
        orders.send_modify(|orders| {
            number = orders.next;
            orders.next += 1;
        });
        tokio::task::spawn_local(carry(client, number, orders.subscribe()));
    }
}

async fn carry(mut client: TcpStream, number: u64, mut orders: watch::Receiver<Orders>) {
    let target = orders.borrow_and_update().target;
    // Nobody there: the client sees its connection close.
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    // A connection that is gone already will say so by itself.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let copying = copy_bidirectional(&mut client, &mut server);
    tokio::pin!(copying);
    loop {
        let now = *orders.borrow_and_update();
        if number < now.cut_below {
            return;
        }
        let is_held = number < now.hold_below;
        tokio::select! {
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = &mut copying, if !is_held => return,
        }
    }
}
