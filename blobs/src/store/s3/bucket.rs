//! The requests that are made of a bucket, each with its error; names of objects.
//!
//! `PREFIXblobs/HEX` is a blob with its trailer; `PREFIXused/HEX`, which has no bytes, was written on the last day on
//! which somebody used it.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use bytes::Bytes;
use eagle_core::config::store::{Encryption, Store};
use eagle_core::digest::Digest;

use super::client::Clients;
use super::error::{RequestError, SetUpError};
use super::root::RootName;

/// A listed object: what it takes, and when it was written, in seconds since 1970 by the service's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) bytes: u64,
    pub(super) written: i64,
}

/// An upload in parts that somebody has begun.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) key: String,
    pub(super) id: String,
    /// When, in seconds since 1970 by the service's clock.
    pub(super) at: i64,
}

/// The bucket.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    clients: Clients,
    name: String,
    prefix: String,
    encryption: Option<ServerSideEncryption>,
    kms_key: Option<String>,
}

impl Bucket {
    pub(super) async fn new(config: &Store) -> Result<Self, SetUpError> {
        Ok(Self {
            clients: Clients::new(config).await?,
            name: config.bucket.clone(),
            prefix: config.prefix.clone(),
            encryption: match config.server_side_encryption {
                Encryption::Unasked => None,
                Encryption::Aes256 => Some(ServerSideEncryption::Aes256),
                Encryption::Kms => Some(ServerSideEncryption::AwsKms),
            },
            kms_key: Some(config.kms_key_id.clone()).filter(|key| !key.is_empty()),
        })
    }

    fn reads(&self) -> &Client {
        &self.clients.reads
    }

    fn writes(&self) -> &Client {
        &self.clients.writes
    }

    fn blobs(&self) -> String {
        format!("{}blobs/", self.prefix)
    }

    fn uses(&self) -> String {
        format!("{}used/", self.prefix)
    }

    pub(super) fn key(&self, digest: &Digest) -> String {
        format!("{}{}", self.blobs(), digest.hex())
    }

    /// The last `bytes` bytes of an object, or all of a shorter one, and the object's length; `None` if there is no such
    /// object.
    pub(super) async fn get_end(
        &self,
        digest: &Digest,
        bytes: u64,
    ) -> Result<Option<(Bytes, u64)>, RequestError> {
        match self.get(digest, Some(format!("bytes=-{bytes}"))).await {
            // Some services have no last 64 KiB of what is shorter.
            Err(error) if error.is_range() => self.get(digest, None).await,
            other => other,
        }
    }

    /// The bytes of a range as HTTP writes it, and the object's length; `None` if there is no such object.
    pub(super) async fn get(
        &self,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<Option<(Bytes, u64)>, RequestError> {
        const STEP: &str = "read an object";
        let request = self.reads().get_object().bucket(&self.name).key(self.key(digest)).set_range(range);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = RequestError::new(STEP, error);
                return if error.is_absence() { Ok(None) } else { Err(error) };
            }
        };
        let length = answer.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        // A service that ignores the range answers with everything.
        let length = length.or(answer.content_length().and_then(|length| u64::try_from(length).ok()));
        let length = length.ok_or(RequestError::Lacking("a length"))?;
        let body = answer.body.collect().await;
        let broke_off = |error| RequestError::Unanswered { step: STEP, source: Box::new(error) };
        Ok(Some((body.map_err(broke_off)?.into_bytes(), length)))
    }

    /// Writes an object in one go.
    pub(super) async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), RequestError> {
        let mut request = self.writes().put_object().bucket(&self.name).key(self.key(digest));
        request = request.set_server_side_encryption(self.encryption.clone());
        request = request.set_ssekms_key_id(self.kms_key.clone()).body(bytes.into());
        let sent = request.send().await;
        sent.map(drop).map_err(|error| RequestError::new("write an object", error))
    }

    /// Notes that a blob was used today.
    pub(super) async fn mark(&self, digest: &Digest) -> Result<(), RequestError> {
        let key = format!("{}{}", self.uses(), digest.hex());
        let sent =
            self.writes().put_object().bucket(&self.name).key(key).body(Bytes::new().into()).send().await;
        sent.map(drop).map_err(|error| RequestError::new("note a use", error))
    }

    /// Removes a blob's objects; no error if they are not there.
    pub(super) async fn delete(&self, digest: &Digest) -> Result<(), RequestError> {
        for key in [self.key(digest), format!("{}{}", self.uses(), digest.hex())] {
            let sent = self.writes().delete_object().bucket(&self.name).key(key).send().await;
            match sent.map_err(|error| RequestError::new("remove an object", error)) {
                Err(error) if !error.is_absence() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Begins an upload in parts.
    pub(super) async fn begin(&self, digest: &Digest) -> Result<String, RequestError> {
        let mut request = self.writes().create_multipart_upload().bucket(&self.name).key(self.key(digest));
        request = request.set_server_side_encryption(self.encryption.clone());
        let request = request.set_ssekms_key_id(self.kms_key.clone());
        let sent = request.customize().interceptor(RootName).send().await;
        let answer = sent.map_err(|error| RequestError::new("begin an upload", error))?;
        answer.upload_id.ok_or(RequestError::Lacking("an upload's name"))
    }

    /// Writes one part, counted from 1.
    pub(super) async fn part(
        &self,
        digest: &Digest,
        upload: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<CompletedPart, RequestError> {
        let request = self.writes().upload_part().bucket(&self.name).key(self.key(digest));
        let sent = request.upload_id(upload).part_number(number).body(bytes.into()).send().await;
        let answer = sent.map_err(|error| RequestError::new("write a part", error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build())
    }

    /// Makes the object of its parts: from now on it is there.
    pub(super) async fn complete(
        &self,
        digest: &Digest,
        upload: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), RequestError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.clients.completions.complete_multipart_upload().bucket(&self.name);
        let sent = request.key(self.key(digest)).upload_id(upload).multipart_upload(parts).send().await;
        sent.map(drop).map_err(|error| RequestError::new("complete an upload", error))
    }

    /// Throws an upload's parts away.
    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<(), RequestError> {
        let request = self.writes().abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload);
        match request.send().await.map_err(|error| RequestError::new("abort an upload", error)) {
            Err(error) if !error.is_absence() => Err(error),
            _ => Ok(()),
        }
    }

    /// Every upload that is not complete, whoever began it.
    pub(super) async fn uploads(&self) -> Result<Vec<Begun>, RequestError> {
        let mut found = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let request = self.writes().list_multipart_uploads().bucket(&self.name).prefix(self.blobs());
            let sent = request.set_key_marker(key).set_upload_id_marker(id).send().await;
            let page = sent.map_err(|error| RequestError::new("list uploads", error))?;
            found.extend(page.uploads().iter().filter_map(|upload| {
                Some(Begun {
                    key: upload.key()?.to_owned(),
                    id: upload.upload_id()?.to_owned(),
                    at: upload.initiated()?.secs(),
                })
            }));
            if page.is_truncated() != Some(true) || page.next_key_marker.is_none() {
                return Ok(found);
            }
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Every blob that is there.
    pub(super) async fn list(&self) -> Result<HashMap<Digest, Listed>, RequestError> {
        self.list_under(&self.blobs()).await
    }

    /// When blobs were last used, as of the day.
    pub(super) async fn list_uses(&self) -> Result<HashMap<Digest, Listed>, RequestError> {
        self.list_under(&self.uses()).await
    }

    async fn list_under(&self, prefix: &str) -> Result<HashMap<Digest, Listed>, RequestError> {
        let request = self.writes().list_objects_v2().bucket(&self.name).prefix(prefix);
        let mut pages = request.into_paginator().send();
        let mut found = HashMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| RequestError::new("list objects", error))?;
            found.extend(page.contents().iter().filter_map(|object| {
                let name = object.key()?.strip_prefix(prefix)?;
                // Whatever else lies there is not ours.
                let digest = Digest::from_hex(name).ok()?;
                let bytes = u64::try_from(object.size()?).ok()?;
                Some((digest, Listed { bytes, written: object.last_modified().map_or(0, DateTime::secs) }))
            }));
        }
        Ok(found)
    }
}
