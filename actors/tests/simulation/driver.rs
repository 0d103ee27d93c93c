//! [`World`]: a store, hubs and clients, moved on step by step as a seed says.

use fastrand::Rng;
use runcast_actors::order::Safeguards;

use crate::checker;
use crate::client::Client;
use crate::hub::{Heard, Hub, Limits};
use crate::store::{APPENDS_MAX, Store};

/// Rounds in which all must have come to rest.
const ROUNDS_MAX: usize = 2000;

/// What may happen in one run of the simulation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// The stream is trimmed.
    pub(crate) trims: bool,
    /// Failovers lose writes.
    pub(crate) rewinds: bool,
    /// The server comes back with an older dump.
    pub(crate) restores: bool,
    /// Keys expire, are flushed; the run is restarted.
    pub(crate) epochs: bool,
    /// Others publish frames of their own making.
    pub(crate) forged: bool,
    /// Plain events are published too.
    pub(crate) plain: bool,
    /// Single frames are lost, without a sign.
    pub(crate) losses: bool,
    /// Subscriptions are lost.
    pub(crate) cuts: bool,
    /// Frames come twice.
    pub(crate) duplicates: bool,
    /// Brokers are killed.
    pub(crate) deaths: bool,
    /// Reads fail.
    pub(crate) failures: bool,
}

impl Faults {
    fn draw(rng: &mut Rng) -> Self {
        let loses_data = rng.u8(..4) > 0;
        let bits = rng.u16(..);
        let is = |bit: u16| bits >> bit & 1 == 1;
        let forged = loses_data && is(4) && is(12);
        Self {
            trims: loses_data && is(0),
            rewinds: loses_data && is(1),
            restores: loses_data && is(2) && is(11),
            epochs: loses_data && is(3),
            forged,
            plain: loses_data && is(5),
            // A frame forged to stand in for a lost one cannot be told from it.
            losses: is(6) && !forged,
            cuts: is(7),
            duplicates: is(8),
            deaths: is(9),
            failures: is(10),
        }
    }

    /// Whether no gap is to be told at all.
    pub(crate) fn lose_nothing(&self) -> bool {
        !(self.trims || self.rewinds || self.restores || self.epochs || self.forged || self.plain)
    }
}

/// All there is.
#[derive(Debug)]
pub(crate) struct World {
    rng: Rng,
    /// What may happen.
    pub(crate) faults: Faults,
    /// The run's keys.
    pub(crate) store: Store,
    /// A hub on each broker.
    pub(crate) hubs: Vec<Hub>,
    /// Who watches.
    pub(crate) clients: Vec<Client>,
    /// Most things that a hub, or a client, does in a step.
    hub_speed: u8,
    client_speed: u8,
    trace: Option<fn(&str)>,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64, safeguards: Safeguards, trace: Option<fn(&str)>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let faults = Faults::draw(&mut rng);
        let limits = Limits {
            log_max: rng.usize(2..40),
            held_max: rng.usize(0..12),
        };
        let mut store = Store::default();
        store.tick(1000);
        if faults.trims {
            store.kept_max = rng.usize(1..40);
        }
        let world = Self {
            faults,
            store,
            hubs: (0..rng.usize(2..4))
                .map(|_| Hub::new(limits, safeguards))
                .collect(),
            clients: (0..rng.usize(2..6))
                .map(|_| Client::new(safeguards))
                .collect(),
            hub_speed: rng.u8(1..8),
            client_speed: rng.u8(1..6),
            rng,
            trace,
        };
        world.tell(|| {
            format!(
                "seed {seed}: {faults:?} {limits:?} kept {}",
                world.store.kept_max
            )
        });
        world
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace(&text());
        }
    }

    /// Runs so many steps, comes to rest, and checks all.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            self.tell(|| format!("-- {step}"));
            self.step();
        }
        self.tell(|| "-- rest".to_owned());
        self.rest()?;
        // What was in doubt must not hold up what comes now.
        self.publish();
        self.rest()?;
        for (index, client) in self.clients.iter().enumerate() {
            self.tell(|| format!("client {index} was sent {:?}", client.seen));
        }
        checker::check(self)
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.u32(..of) == 0
    }

    // ---- steps -------------------------------------------------------------

    fn step(&mut self) {
        self.store.tick(self.rng.u64(..20));
        match self.rng.u8(..32) {
            0..=6 => self.publish_some(),
            7..=16 => {
                let index = self.rng.usize(..self.hubs.len());
                for _ in 0..self.rng.u8(1..=self.hub_speed) {
                    self.hub_step(index);
                }
            }
            17..=29 => {
                let index = self.rng.usize(..self.clients.len());
                for _ in 0..self.rng.u8(1..=self.client_speed) {
                    self.client_step(index);
                }
            }
            30 => self.move_client(),
            _ => self.fault(),
        }
    }

    fn publish_some(&mut self) {
        let count = match self.rng.u8(..16) {
            0 => self.rng.usize(2..12),
            _ => 1,
        };
        for _ in 0..count {
            self.publish();
        }
        if self.faults.plain && self.chance(4) {
            self.tell(|| "plain event".to_owned());
            for hub in self.hubs.iter_mut().filter(|hub| hub.is_connected) {
                hub.channel.push_back(Heard::Plain);
            }
        }
    }

    fn publish(&mut self) {
        if self.store.appends.len() + 1 < APPENDS_MAX {
            let id = self.store.append();
            self.announce(id);
        }
    }

    fn announce(&mut self, id: runcast_actors::protocol::DurableId) {
        self.tell(|| format!("published {id}"));
        for index in 0..self.hubs.len() {
            if !self.hubs[index].is_connected {
                continue;
            }
            if self.faults.losses && self.chance(24) {
                self.tell(|| format!("hub {index}: {id} lost"));
                continue;
            }
            self.hubs[index].channel.push_back(Heard::Durable(id));
            if self.faults.duplicates && self.chance(12) {
                // What a failover forgot does not come after what took its place.
                let old = self.store.appends[self.rng.usize(..self.store.appends.len())];
                let again = if old.is_lost { id } else { old.id };
                self.tell(|| format!("hub {index}: {again} again"));
                self.hubs[index].channel.push_back(Heard::Durable(again));
            }
        }
    }

    fn hub_step(&mut self, index: usize) {
        let fails = self.faults.failures && self.chance(6);
        let frames = self.rng.usize(1..8);
        let what = self.rng.u8(..8);
        let hub = &mut self.hubs[index];
        match what {
            0..=2 => (0..frames).for_each(|_| hub.hear()),
            3 => hub.execute_read(&self.store, fails),
            4 => hub.take_page(),
            5 => hub.pass_on(frames * 2),
            6 => match hub.is_check_wanted || frames == 1 {
                true => hub.check(false),
                false => hub.execute_check(&self.store, fails),
            },
            _ => hub.take_position(),
        }
        self.tell(|| format!("hub {index} step {what}: {}", self.hubs[index].state()));
    }

    fn client_step(&mut self, index: usize) {
        // The first is always slow.
        let frames = self.rng.usize(..if index == 0 { 2 } else { 9 });
        let fails = self.faults.failures && self.chance(6);
        let client = &mut self.clients[index];
        if !client.execute_read(&self.store, fails) {
            client.go_on(Client::log_of(&self.hubs[client.hub]), frames);
        }
        self.tell_client(index);
    }

    fn tell_client(&self, index: usize) {
        self.tell(|| {
            let client = &self.clients[index];
            let from = client.seen.len().saturating_sub(3);
            format!(
                "client {index}: {} {:?}",
                client.state(),
                &client.seen[from..]
            )
        });
    }

    fn move_client(&mut self) {
        let index = self.rng.usize(..self.clients.len());
        if self.clients[index].is_away() {
            let hub = self.rng.usize(..self.hubs.len());
            self.connect(index, hub);
        } else if self.chance(3) {
            self.disconnect(index);
        }
    }

    fn connect(&mut self, index: usize, hub: usize) {
        self.clients[index].connect(hub);
        self.hubs[hub].watch();
        self.tell_client(index);
    }

    fn disconnect(&mut self, index: usize) {
        self.clients[index].disconnect();
        let hub = self.clients[index].hub;
        let stays = |client: &Client| !client.is_away() && client.hub == hub;
        if !self.clients.iter().any(stays) {
            self.hubs[hub].unwatch();
        }
        self.tell(|| format!("client {index} went"));
    }

    // ---- faults ------------------------------------------------------------

    fn fault(&mut self) {
        let faults = self.faults;
        match self.rng.u8(..12) {
            0 | 1 => self.reconnect(),
            2 if faults.cuts => self.cut(),
            3 if faults.deaths => self.kill_hub(),
            4 if faults.trims => {
                let kept = self.rng.usize(..12);
                self.tell(|| format!("trimmed to {kept}"));
                self.store.trim(kept);
            }
            5 if faults.epochs && self.chance(3) => self.lose_keys(),
            6 | 7 if faults.rewinds => self.fail_over(),
            8 if faults.restores => {
                self.tell(|| "saved".to_owned());
                self.store.save();
            }
            9 if faults.restores && self.chance(3) => {
                self.tell(|| "restored".to_owned());
                self.store.restore();
                (0..self.hubs.len()).for_each(|index| self.cut_hub(index));
            }
            10 if faults.forged => self.forge(),
            _ => {}
        }
    }

    fn reconnect(&mut self) {
        let is_sure = self.rng.bool();
        for (index, hub) in self.hubs.iter_mut().enumerate() {
            if !hub.is_connected {
                hub.is_connected = true;
                hub.channel.push_back(Heard::Reconnected);
                if is_sure {
                    hub.check(true);
                }
                if let Some(trace) = self.trace {
                    trace(&format!("hub {index} reconnected"));
                }
            }
        }
    }

    fn cut(&mut self) {
        let index = self.rng.usize(..self.hubs.len());
        self.cut_hub(index);
    }

    fn cut_hub(&mut self, index: usize) {
        let heard = self.rng.usize(..=self.hubs[index].channel.len());
        // That it was cut before is heard in any case.
        let channel = &mut self.hubs[index].channel;
        let was_cut = channel
            .iter()
            .skip(heard)
            .any(|heard| matches!(heard, Heard::Reconnected));
        channel.truncate(heard);
        if was_cut {
            channel.push_back(Heard::Reconnected);
        }
        self.hubs[index].is_connected = false;
        self.tell(|| format!("hub {index} cut"));
    }

    fn kill_hub(&mut self) {
        let index = self.rng.usize(..self.hubs.len());
        self.hubs[index] = self.hubs[index].reborn();
        for client in self.clients.iter_mut().filter(|client| client.hub == index) {
            client.disconnect();
        }
        self.tell(|| format!("hub {index} killed"));
    }

    fn lose_keys(&mut self) {
        let what = self.rng.u8(..4);
        self.tell(|| format!("keys lost: {what}"));
        match what {
            0 => self.store.flush(),
            1 => self.store.expire_meta(),
            2 => self.store.expire_stream(),
            _ if self.store.appends.len() + 1 < APPENDS_MAX => {
                let id = self.store.restart();
                self.announce(id);
            }
            _ => {}
        }
    }

    fn fail_over(&mut self) {
        let count = self.rng.usize(..10);
        let behind = if self.rng.bool() {
            self.rng.u64(..400)
        } else {
            0
        };
        // In a cluster the subscription may be on another node: then it stays.
        let cuts = self.faults.losses || self.rng.bool();
        self.tell(|| format!("failed over: {count} lost, clock {behind} behind, cuts {cuts}"));
        self.store.rewind(count, behind);
        if cuts {
            (0..self.hubs.len()).for_each(|index| self.cut_hub(index));
        }
    }

    fn forge(&mut self) {
        let Some(last) = self.store.last() else {
            return;
        };
        if self.store.appends.len() + 1 >= APPENDS_MAX {
            return;
        }
        let epoch = [last.epoch, last.epoch, last.epoch - 1, last.epoch + 5][self.rng.usize(..4)];
        let seq = (last.seq + self.rng.u64(..6)).saturating_sub(2).max(1);
        let id = self.store.forge(epoch, seq);
        self.tell(|| format!("forged {id}"));
        // The first thing that a hub hears it has nothing to compare with.
        let hears = |hub: &&mut Hub| hub.is_connected && hub.place().is_some();
        for hub in self.hubs.iter_mut().filter(hears) {
            hub.channel.push_back(Heard::Durable(id));
        }
    }

    // ---- rest --------------------------------------------------------------

    /// Lets everything that is under way arrive, without faults.
    fn rest(&mut self) -> Result<(), String> {
        self.reconnect();
        for index in 0..self.clients.len() {
            if self.clients[index].is_away() {
                let hub = self.rng.usize(..self.hubs.len());
                self.connect(index, hub);
            }
        }
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            quiet = if self.round() { 0 } else { quiet + 1 };
            if quiet == 3 {
                return checker::check_rest(self);
            }
        }
        Err("it does not come to rest".to_owned())
    }

    /// Moves everything on once; returns whether anything moved.
    fn round(&mut self) -> bool {
        let mut moved = false;
        for (index, hub) in self.hubs.iter_mut().enumerate() {
            moved |= hub.is_busy();
            (0..hub.channel.len()).for_each(|_| hub.hear());
            hub.execute_read(&self.store, false);
            hub.take_page();
            hub.check(false);
            hub.execute_check(&self.store, false);
            hub.take_position();
            hub.pass_on(usize::MAX);
            if let Some(trace) = self.trace {
                trace(&format!("hub {index}: {}", hub.state()));
            }
        }
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            moved |= client.execute_read(&self.store, false);
            moved |= client.go_on(Client::log_of(&self.hubs[client.hub]), 64);
            self.tell_client(index);
        }
        moved
    }
}
