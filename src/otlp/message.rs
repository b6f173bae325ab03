//! Spans as the collector reads them: the messages of OpenTelemetry's protobuf.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};

use super::{Span, Value};
use crate::model::Timestamp;

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE` and `…_IS_REMOTE`: whether a parent is another process's.
const KNOWS_PARENT: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
/// As in `traceparent`.
const SAMPLED: u32 = 1;

/// Who tells.
#[derive(Clone)]
pub(super) struct Teller {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Teller {
    /// This gateway, by the name of its service and its own.
    pub fn new(service: &str, node: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let text = |text: &str| Value::Text(text.to_owned());
        let attributes = vec![
            attribute("service.name", text(service)),
            attribute("service.instance.id", text(node)),
            attribute("service.version", text(version)),
        ];
        Self {
            resource: Resource { attributes, ..Resource::default() },
            scope: InstrumentationScope {
                name: env!("CARGO_PKG_NAME").into(),
                version: version.into(),
                ..InstrumentationScope::default()
            },
        }
    }

    /// One request for all of them.
    pub fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope_spans = vec![ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(message).collect(),
            ..ScopeSpans::default()
        }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
        }
    }
}

fn message(span: Span) -> Message {
    let remote = if span.parent.is_some() { PARENT_IS_REMOTE } else { 0 };
    let code = if span.failed { Code::Error } else { Code::Unset };
    Message {
        trace_id: span.trace.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED | KNOWS_PARENT | remote,
        name: span.name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(span.started),
        end_time_unix_nano: nanos(span.ended),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status: Some(Status { code: code.into(), message: String::new() }),
        ..Message::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::StringValue(text),
        Value::Whole(number) => Any::IntValue(number),
    };
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or_default().saturating_mul(1000)
}
