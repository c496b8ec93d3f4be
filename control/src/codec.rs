//! Messages to bytes: Protocol Buffers one way, ready-made bytes the other.
//!
//! The operator sends the same desired state to thousands of agents; it encodes it once and every stream shares the
//! bytes. The buffers are small because a stream's messages are: at tonic's default of 8 KiB each way, ten thousand
//! idle streams would hold 160 MiB; with these they hold one.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Bytes a stream's buffer starts with: as long as it has said nothing, it needs none. It grows with its messages.
const BUFFER: usize = 64;
/// Bytes encoded before the stream lets others run.
const YIELD: usize = 32 << 10;

/// Sends `E`, receives `D`.
pub(crate) struct Pair<E, D>(PhantomData<fn() -> (E, D)>);

impl<E, D> Default for Pair<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// What can be put on the wire.
pub(crate) trait Wire: Send + 'static {
    /// Appends it.
    fn put(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status>;
}

/// A message that is already encoded.
#[derive(Clone, Debug)]
pub struct Encoded(pub Bytes);

impl Wire for Encoded {
    fn put(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(self.0);
        Ok(())
    }
}

impl Wire for crate::message::FromAgent {
    fn put(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<E: Wire, D: Message + Default + 'static> Codec for Pair<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Half<E>;
    type Decoder = Half<D>;

    fn encoder(&mut self) -> Half<E> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<D> {
        Half(PhantomData)
    }
}

/// One direction.
pub(crate) struct Half<T>(PhantomData<fn() -> T>);

impl<T: Wire> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.put(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
    }
}

impl<T: Message + Default> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(buffer).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
    }
}
