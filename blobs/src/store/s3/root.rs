//! Reading answers of services that name one XML element otherwise than S3 does.
//!
//! S3 answers the beginning of an upload with an `InitiateMultipartUploadResult`, as its reference says; `rclone serve s3`
//! and others on the same library with an `InitiateMultipartUpload`. Most clients do not look at that name; the SDK refuses
//! another one. It is put right before the SDK sees it.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt as _;

const WRONG: &str = "InitiateMultipartUpload>";
const RIGHT: &str = "InitiateMultipartUploadResult>";

/// Puts the name of the answer's element right.
#[derive(Debug)]
pub(super) struct RootName;

impl Intercept for RootName {
    fn name(&self) -> &'static str {
        "RootName"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let answer = std::mem::replace(body, SdkBody::taken());
        // The answer has some 200 bytes and comes in one piece. One that were cut within the name would be refused as
        // before, and the upload tried again.
        *body = SdkBody::from_body_1_x(answer.map_frame(|frame| frame.map_data(|data| put_right(&data))));
        Ok(())
    }
}

fn put_right(data: &Bytes) -> Bytes {
    match std::str::from_utf8(data) {
        Ok(text) if text.contains(WRONG) => text.replace(WRONG, RIGHT).into(),
        _ => data.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wrong_name_is_changed() {
        let right =
            Bytes::from("<InitiateMultipartUploadResult><Key>a</Key></InitiateMultipartUploadResult>");
        assert_eq!(put_right(&right), right);
        let wrong = Bytes::from("<InitiateMultipartUpload><Key>a</Key></InitiateMultipartUpload>");
        assert_eq!(put_right(&wrong), right);
    }
}
