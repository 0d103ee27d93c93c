//! The engine `api` of a build without the feature `kubernetes-api`: none of
//! these exists.

use std::sync::Arc;
use std::time::Duration;

use super::counters::WatchPlace;
use super::engine::{Ask, LogAsk, LogStream};
use super::failure::Failure;
use super::pods::PodEvent;
use crate::settings::KubectlSettings;

/// Never made.
#[derive(Debug, Clone)]
pub(crate) enum Api {}

impl Api {
    pub(crate) fn new(_: &Arc<KubectlSettings>) -> Option<Self> {
        None
    }

    pub(crate) async fn ask(&self, _: &Ask<'_>) -> Result<Vec<u8>, Failure> {
        match *self {}
    }

    pub(crate) fn open_log(&self, _: &LogAsk<'_>) -> LogStream {
        match *self {}
    }

    pub(crate) async fn watch(&self, _: &str, _: &str, _: WatchPlace) -> Result<Watch, Failure> {
        match *self {}
    }
}

/// Never made.
#[derive(Debug)]
pub(crate) enum ApiLog {}

impl ApiLog {
    pub(crate) async fn read(&mut self, _: &mut Vec<u8>) -> usize {
        match *self {}
    }

    pub(crate) fn ended(self) -> Result<(), Failure> {
        match self {}
    }
}

/// Never made.
#[derive(Debug)]
pub(crate) enum Watch {}

impl Watch {
    pub(crate) async fn next(&mut self) -> PodEvent {
        match *self {}
    }

    pub(crate) fn lived(&self) -> Duration {
        match *self {}
    }
}
