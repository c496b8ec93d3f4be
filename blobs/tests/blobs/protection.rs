//! What a registry is spared: requests before it wants them, tokens over and over, more connections and bytes than it may be
//! asked for; and who is asked in its stead.

use std::time::{Duration, SystemTime};

use eagle_blobs::origin::fake::{FakeAccess, FakeRegistry, Fault, Options};
use eagle_blobs::origin::{Auth, ManifestHead, Origin, OriginError};
use eagle_core::config::period::Period;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::Target;
use eagle_core::size::Rate;
use futures::future::join_all;

use crate::registries::{HOST, INDEX, PASSWORD, basic, bearer, config, fake, index, repository, with_login};
use crate::world::{DEADLINE, Sample, drain};

fn tag() -> Target {
    Target::Tag("v1".into())
}

fn manifest() -> Digest {
    Digest::of(index().as_bytes())
}

/// A registry behind mirrors.
fn mirrored(registry: &FakeRegistry, mirrors: &[&FakeRegistry]) -> section::Registry {
    let mirrors = mirrors.iter().map(|mirror| mirror.endpoint()).collect();
    section::Registry { mirrors, ..registry.registry(HOST) }
}

async fn read(origin: &Origin, sample: &Sample, from: u64) -> Result<Vec<u8>, OriginError> {
    let body = origin.blob(&repository("some/image"), &sample.digest, from, &Auth::Configured).await?;
    match drain(body.stream).await {
        (bytes, None) => Ok(bytes),
        (_, Some(error)) => Err(error),
    }
}

async fn head(origin: &Origin) -> Result<ManifestHead, OriginError> {
    origin.head_manifest(&repository("some/image"), &tag(), &Auth::Anonymous).await
}

async fn size(origin: &Origin, digest: &Digest) -> Result<u64, OriginError> {
    origin.head_blob(&repository("some/image"), digest, &Auth::Anonymous).await
}

fn pause(error: &OriginError) -> Option<Duration> {
    match error {
        OriginError::Throttled { retry_after } => *retry_after,
        _ => None,
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_come_back_later_is_left_alone() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
    let minutes = |count: u64| Duration::from_secs(60 * count);
    // As it says; as long as is believed; and as long as is guessed.
    for (fault, least, most) in [
        (Fault::Throttle(30), Duration::from_secs(29), Duration::from_secs(30)),
        (Fault::Later(503, date), Duration::from_secs(119), minutes(2)),
        (Fault::Later(429, "soon".into()), Duration::from_millis(900), Duration::from_secs(2)),
    ] {
        let (registry, sample) = fake(FakeAccess::Open).await;
        let (other, _) = fake(FakeAccess::Open).await;
        let mut config = config(registry.registry(HOST));
        config.longest_pause = Period(minutes(2));
        config.registries.push(other.registry("other.test"));
        let origin = Origin::new(&config).unwrap();
        registry.set_fault(&sample.digest, fault.clone());
        let told = read(&origin, &sample, 0).await.unwrap_err();
        let wait = pause(&told).unwrap_or_else(|| panic!("{fault:?}: {told:?}"));
        assert!((least..=most).contains(&wait), "{fault:?}: {wait:?}");
        let before = registry.counts().requests;
        let told = join_all((0..50).map(|_| head(&origin))).await;
        if least > Duration::from_secs(10) {
            assert!(told.iter().all(|told| pause(told.as_ref().unwrap_err()).unwrap() <= wait));
            assert_eq!(registry.counts().requests, before, "nobody asks it meanwhile, whatever it is about");
        }
        let elsewhere = eagle_core::name::Repository::new("other.test", "some/image").unwrap();
        assert!(origin.head_manifest(&elsewhere, &tag(), &Auth::Anonymous).await.is_ok());
    }
}

#[tokio::test]
async fn it_is_asked_again_when_the_time_has_come() {
    let (registry, sample) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(registry.registry(HOST))).unwrap();
    registry.set_fault_times(&sample.digest, Fault::Throttle(1), 1);
    assert!(read(&origin, &sample, 0).await.is_err());
    let again = async {
        loop {
            match read(&origin, &sample, 0).await {
                Ok(bytes) => return bytes,
                Err(error) => assert!(pause(&error).is_some(), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, again).await.expect("the pause does not end") == sample.bytes);
    assert_eq!(registry.counts().requests, 2, "once too early, once in time");
}

#[tokio::test]
async fn a_token_service_that_asks_to_come_back_later_is_left_alone_with_its_registry() {
    let (registry, sample) = fake(bearer(true)).await;
    let origin = Origin::new(&config(registry.registry(HOST))).unwrap();
    registry.set_token_fault(Some(Fault::Throttle(30)));
    for _ in 0..2 {
        let all = join_all((0..20).map(|_| size(&origin, &sample.digest))).await;
        assert!(all.iter().all(|told| pause(told.as_ref().unwrap_err()).is_some()));
    }
    let counts = registry.counts();
    assert_eq!(counts.tokens, 1);
    assert!(counts.requests <= 20, "{}", counts.requests);
}

#[tokio::test]
async fn a_token_service_that_refuses_is_not_stormed() {
    for fault in [None, Some(Fault::Status(500))] {
        let (registry, sample) = fake(bearer(fault.is_some())).await;
        let origin = Origin::new(&config(registry.registry(HOST))).unwrap();
        registry.set_token_fault(fault.clone());
        for _ in 0..10 {
            for told in join_all((0..10).map(|_| size(&origin, &sample.digest))).await {
                let error = told.unwrap_err();
                assert_eq!(error.is_denied(), fault.is_none(), "{error:?}");
            }
        }
        // 100 requests in much less than the two seconds that one refusal counts; but this machine may be busy.
        assert!(registry.counts().tokens <= 3, "{}", registry.counts().tokens);
    }
}

/// Of all whose token is refused at once, on several threads, one fetches another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_that_is_refused_is_replaced_once_however_many_find_out() {
    let (registry, sample) = fake(bearer(true)).await;
    let origin = Origin::new(&config(registry.registry(HOST))).unwrap();
    for round in 1..=20 {
        let all = (0..16).map(|_| {
            let (origin, digest) = (origin.clone(), sample.digest);
            tokio::spawn(async move { size(&origin, &digest).await })
        });
        assert!(join_all(all).await.into_iter().all(|asked| asked.unwrap().is_ok()));
        assert_eq!(registry.counts().tokens, round);
        registry.revoke_tokens();
    }
}

#[tokio::test]
async fn a_registry_has_its_own_bounds() {
    let (registry, sample) = fake(FakeAccess::Open).await;
    let (other, _) = fake(FakeAccess::Open).await;
    let mut config = config(section::Registry { concurrent_requests: Some(4), ..registry.registry(HOST) });
    config.read_timeout = Period::secs(2);
    config.registries.push(other.registry("other.test"));
    let origin = Origin::new(&config).unwrap();
    registry.set_fault(&sample.digest, Fault::StallAt(1000));
    let open = (0..3)
        .map(|_| async { origin.blob(&repository("some/image"), &sample.digest, 0, &Auth::Anonymous).await });
    let bodies: Vec<_> = join_all(open).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(read(&origin, &sample, 0).await, Err(OriginError::Busy)));
    let elsewhere = eagle_core::name::Repository::new("other.test", "some/image").unwrap();
    assert!(origin.blob(&elsewhere, &sample.digest, 0, &Auth::Anonymous).await.is_ok());
    drop(bodies);
    registry.release(&sample.digest);
    assert!(read(&origin, &sample, 0).await.unwrap() == sample.bytes);
}

#[tokio::test]
async fn a_registry_gives_no_more_bytes_a_second_than_it_is_asked_for() {
    let (registry, sample) = fake(FakeAccess::Open).await;
    let entry = section::Registry { download: Rate::per_second(1_000_000), ..registry.registry(HOST) };
    let origin = Origin::new(&config(entry)).unwrap();
    let started = tokio::time::Instant::now();
    let all = join_all((0..2).map(|_| read(&origin, &sample, 0))).await;
    assert!(all.into_iter().all(|bytes| bytes.unwrap() == sample.bytes));
    // 1.4 MB; a tenth of a second may be ahead.
    assert!(started.elapsed() > Duration::from_millis(1250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_the_registry_for_what_they_do_not_have() {
    let (registry, sample) = fake(basic()).await;
    let empty = FakeRegistry::start(Options::default()).await.unwrap();
    let (mirror, _) = fake(FakeAccess::Open).await;
    let entry = with_login(mirrored(&registry, &[&empty, &mirror]), PASSWORD);
    let origin = Origin::new(&config(entry)).unwrap();
    let image = repository("some/image");
    assert!(read(&origin, &sample, 0).await.unwrap() == sample.bytes);
    assert_eq!(origin.head_manifest(&image, &tag(), &Auth::Configured).await.unwrap().digest, manifest());
    assert_eq!(registry.counts().requests, 0);
    let meant = |registry: &FakeRegistry| registry.counts().meant.get(HOST).copied();
    assert_eq!((meant(&empty), meant(&mirror)), (Some(2), Some(2)), "they are told which registry is meant");
    // The registry's word is the last, and its login is for nobody else.
    let unknown = Digest::of(b"nothing");
    let missing = origin.head_blob(&image, &unknown, &Auth::Configured).await;
    assert!(matches!(missing, Err(OriginError::NotFound)), "{missing:?}");
    for mirror in [&empty, &mirror] {
        mirror.set_access("some/image", basic());
    }
    assert!(origin.head_blob(&image, &unknown, &Auth::Anonymous).await.is_err_and(|error| error.is_denied()));
    assert_eq!((empty.counts().logins, mirror.counts().logins), (0, 0));
}

#[tokio::test]
async fn a_mirror_that_fails_is_passed_over_for_a_while() {
    for fault in [
        Fault::Status(500),
        Fault::Status(403),
        Fault::Page,
        Fault::Throttle(30),
        Fault::WrongByteAt(3),
        Fault::Length(5),
        Fault::Hang,
    ] {
        let (registry, _) = fake(FakeAccess::Open).await;
        let (mirror, _) = fake(FakeAccess::Open).await;
        let mut config = config(mirrored(&registry, &[&mirror]));
        config.read_timeout = Period::secs(2);
        let origin = Origin::new(&config).unwrap();
        mirror.set_fault(&manifest(), fault.clone());
        for round in 1..=5 {
            let target = Target::Digest(manifest());
            let given = origin.manifest(&repository("some/image"), &target, &Auth::Anonymous).await;
            assert_eq!(given.unwrap().bytes, index(), "{fault:?}");
            assert_eq!(registry.counts().manifest_gets, round, "{fault:?}");
        }
        // Not to show one thing is no failure.
        let is_asked_each_time = mirror.counts().manifest_gets == 5;
        assert_eq!(is_asked_each_time, fault == Fault::Status(403), "{fault:?}");
    }
}

#[tokio::test]
async fn a_mirror_that_is_gone_costs_one_try_and_comes_back() {
    let (registry, sample) = fake(FakeAccess::Open).await;
    let (mirror, _) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(mirrored(&registry, &[&mirror]))).unwrap();
    mirror.stop().await;
    assert!(read(&origin, &sample, 0).await.unwrap() == sample.bytes);
    assert_eq!(registry.counts().all_blob_gets(), 1);
    mirror.resume().await;
    let back = async {
        while mirror.counts().all_blob_gets() == 0 {
            assert!(read(&origin, &sample, 0).await.unwrap() == sample.bytes);
        }
    };
    tokio::time::timeout(DEADLINE, back).await.expect("it is never asked again");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_was_wrong_is_got_from_the_next() {
    let (registry, sample) = fake(FakeAccess::Open).await;
    let (mirror, _) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(mirrored(&registry, &[&mirror]))).unwrap();
    mirror.set_fault(&sample.digest, Fault::TruncateAt(100_000));
    assert!(read(&origin, &sample, 0).await.is_err());
    assert!(read(&origin, &sample, 100_000).await.unwrap() == sample.bytes[100_000..]);
    assert_eq!((mirror.counts().all_blob_gets(), registry.counts().all_blob_gets()), (1, 1));

    let (mirror, _) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(mirrored(&registry, &[&mirror]))).unwrap();
    for fault in [Fault::WrongByteAt(1), Fault::Length(650_000)] {
        mirror.set_fault(&sample.digest, fault);
        let body = origin.blob(&repository("some/image"), &sample.digest, 0, &Auth::Anonymous).await.unwrap();
        // Only the whole can be seen to be wrong, by whoever has it.
        let giver = body.giver.clone();
        assert!(drain(body.stream).await.0 != sample.bytes);
        if mirror.counts().all_blob_gets() == 2 {
            giver.distrust();
        }
    }
    assert!(read(&origin, &sample, 0).await.unwrap() == sample.bytes);
    assert_eq!((mirror.counts().all_blob_gets(), registry.counts().all_blob_gets()), (2, 2));
}

#[tokio::test]
async fn where_a_redirect_leads_is_neither_believed_nor_given_a_login() {
    let (registry, sample) = fake(basic()).await;
    let (storage, _) = fake(FakeAccess::Open).await;
    let (thief, _) = fake(bearer(true)).await;
    let origin = Origin::new(&config(with_login(registry.registry(HOST), PASSWORD))).unwrap();
    registry.set_fault(&sample.digest, Fault::RedirectTo(storage.endpoint()));
    let realm = format!("Bearer realm=\"{}/token\",scope=\"repository:some/image:pull\"", thief.endpoint());
    for fault in [
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(500),
        Fault::Challenge("Basic realm=\"x\"".into()),
        Fault::Challenge(realm),
    ] {
        storage.set_fault(&sample.digest, fault.clone());
        let error = read(&origin, &sample, 0).await.unwrap_err();
        assert!(error.is_outage(), "{fault:?} is not the registry's word: {error:?}");
    }
    assert_eq!((storage.counts().leaked_logins, thief.counts().tokens), (0, 0));
    storage.release(&sample.digest);
    assert!(read(&origin, &sample, 1000).await.unwrap() == sample.bytes[1000..]);
    assert_eq!(storage.counts().leaked_logins, 0);
}

#[tokio::test]
async fn a_manifest_of_the_wrong_length_is_refused() {
    let (registry, _) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(registry.registry(HOST))).unwrap();
    registry.set_fault(&manifest(), Fault::Length(10));
    for target in [tag(), Target::Digest(manifest())] {
        let wrong = origin.manifest(&repository("some/image"), &target, &Auth::Anonymous).await;
        assert!(matches!(wrong, Err(OriginError::WrongDigest { .. })), "{wrong:?}");
    }
    registry.add_manifest("some/image", Some("empty"), INDEX, "");
    let empty = Target::Tag("empty".into());
    let empty = origin.head_manifest(&repository("some/image"), &empty, &Auth::Anonymous).await;
    assert!(empty.is_err_and(|error| error.is_outage()));
}
