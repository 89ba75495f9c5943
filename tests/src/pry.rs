//! Trying to reach what belongs to somebody else, by every method that the public port has for citizens and entry points (I8).

use aho_corasick::AhoCorasick;
use anyhow::Context as _;
use bytes::Bytes;
use contracts::cases::v1::case_service_client::CaseServiceClient;
use contracts::cases::v1::{CancelCaseRequest, GetCaseRequest, ListCasesRequest, WatchCaseRequest, WatchCasesRequest};
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use contracts::department::v1::{ListBillsRequest, QueryRequest};
use http_body::Body;
use invariants::Probe;
use prost::Message as _;
use prost_types::Struct;
use tonic::client::GrpcService;
use tonic::{Request, Status};

use crate::super_app::{Citizen, ITEM, with_token};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Somebody's case, and what nobody else may learn of it.
#[derive(Clone, Debug)]
pub struct Prey {
    /// The case.
    pub case_id: String,
    request_id: String,
    region: String,
    input: Struct,
    /// Name, number, plates and the bill's number.
    canaries: Vec<String>,
}

/// A way to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The violations of the other's car.
    Query,
    /// The bills of the other's car.
    ListBills,
    /// The case, by its id.
    GetById,
    /// The case, by the request id that opened it.
    GetByRequest,
    /// All cases that there are.
    ListCases,
    /// The steps of the case.
    WatchCase,
    /// The steps of all cases of the entry point, with a citizen's token.
    WatchCases,
    /// Taking the case back.
    Cancel,
}

impl Reach {
    /// Every way.
    pub const ALL: [Self; 8] = [
        Self::Query,
        Self::ListBills,
        Self::GetById,
        Self::GetByRequest,
        Self::ListCases,
        Self::WatchCase,
        Self::WatchCases,
        Self::Cancel,
    ];

    /// Tries it with a citizen's token; the bytes of the answer.
    pub async fn ask<T>(
        self,
        mut cases: CaseServiceClient<T>,
        mut department: DepartmentServiceClient<T>,
        token: &str,
        prey: &Prey,
    ) -> Result<Vec<u8>, Status>
    where
        T: GrpcService<tonic::body::Body>,
        T::Error: Into<Failure>,
        T::ResponseBody: Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as Body>::Error: Into<Failure> + Send,
    {
        let (item, region, input) = (ITEM.to_owned(), prey.region.clone(), Some(prey.input.clone()));
        let (case_id, request_id) = (prey.case_id.clone(), "pry".to_owned());
        let get = |case_id: &str, request_id: &str| GetCaseRequest {
            case_id: case_id.to_owned(),
            request_id: request_id.to_owned(),
        };
        Ok(match self {
            Self::Query => {
                let asked = QueryRequest { item, region, request_id, input, ..QueryRequest::default() };
                department.query(with(asked, token)).await?.into_inner().encode_to_vec()
            }
            Self::ListBills => {
                let asked = ListBillsRequest { item, region, request_id, input, ..ListBillsRequest::default() };
                department.list_bills(with(asked, token)).await?.into_inner().encode_to_vec()
            }
            Self::GetById => cases.get_case(with(get(&case_id, ""), token)).await?.into_inner().encode_to_vec(),
            Self::GetByRequest => {
                cases.get_case(with(get("", &prey.request_id), token)).await?.into_inner().encode_to_vec()
            }
            Self::ListCases => {
                let asked = ListCasesRequest { page_size: 100, page_token: String::new() };
                cases.list_cases(with(asked, token)).await?.into_inner().encode_to_vec()
            }
            Self::WatchCase => {
                let asked = WatchCaseRequest { case_id, after_sequence: 0 };
                let mut steps = cases.watch_case(with(asked, token)).await?.into_inner();
                steps.message().await?.unwrap_or_default().encode_to_vec()
            }
            Self::WatchCases => {
                let asked = WatchCasesRequest { after_sequence: 0 };
                let mut steps = cases.watch_cases(with(asked, token)).await?.into_inner();
                steps.message().await?.unwrap_or_default().encode_to_vec()
            }
            Self::Cancel => {
                let asked = CancelCaseRequest { case_id, request_id };
                cases.cancel_case(with(asked, token)).await?.into_inner().encode_to_vec()
            }
        })
    }

    /// Whether an answer alone is already too much: nothing of one's own can be in it.
    fn yields(self) -> bool {
        !matches!(self, Self::Query | Self::ListBills | Self::ListCases)
    }
}

fn with<M>(message: M, token: &str) -> Request<M> {
    with_token(message, token).expect("a token is a header")
}

impl Prey {
    /// The case of a citizen's bill in a region, and the request id that opened it.
    pub fn new(
        citizen: &Citizen,
        region: &str,
        bill_no: &str,
        case_id: &str,
        request_id: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            case_id: case_id.to_owned(),
            request_id: request_id.to_owned(),
            region: region.to_owned(),
            input: citizen.input(region)?,
            canaries: citizen.canaries().into_iter().chain([bill_no.to_owned()]).collect(),
        })
    }

    /// Where the bill is.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// What came of a try by somebody whose own data are `own`.
    pub fn probe(
        &self,
        who: &str,
        reach: Reach,
        answer: &Result<Vec<u8>, Status>,
        own: &Citizen,
    ) -> anyhow::Result<Probe> {
        let answer = match answer {
            Ok(bytes) => Ok(bytes.as_slice()),
            Err(status) => Err([status.message().as_bytes(), status.details()].concat()),
        };
        let leaked = self.leaks(reach, answer, own)?;
        Ok(Probe { what: format!("{who}: {reach:?} of {}", self.case_id), leaked })
    }

    /// Whether an answer, or what a refusal said, has anything of the prey in it.
    fn leaks(&self, reach: Reach, answer: Result<&[u8], Vec<u8>>, own: &Citizen) -> anyhow::Result<bool> {
        let own = own.canaries();
        let others = |canary: &&String| !own.iter().any(|text| text.contains(canary.as_str()));
        let mut secrets: Vec<&String> = self.canaries.iter().filter(others).collect();
        // A refusal may name the case that it was asked for; an answer may not.
        secrets.extend(answer.is_ok().then_some(&self.case_id));
        let is_too_much = answer.is_ok() && reach.yields();
        let found = AhoCorasick::new(&secrets).context("canaries")?;
        Ok(is_too_much || answer.map_or_else(|said| found.is_match(&said), |bytes| found.is_match(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn citizen(name: &str, plate: &str) -> Citizen {
        let vehicles = json!([{ "region": "430100", "class": "02", "plate": plate }]);
        serde_json::from_value(json!({ "name": name, "number": plate, "vehicles": vehicles })).expect("a citizen")
    }

    #[test]
    fn a_byte_of_somebody_else_is_a_leak_wherever_it_stands() {
        let (prey, own) = (citizen("李四", "湘A00001"), citizen("李四光", "湘A00002"));
        let prey = Prey::new(&prey, "430100", "bill-7", "case_7", "r-7").expect("a car");
        let leaks = |reach, answer: Result<&str, &str>| {
            let answer = answer.map(str::as_bytes).map_err(|said| said.as_bytes().to_vec());
            prey.leaks(reach, answer, &own).expect("searches")
        };
        for secret in ["湘A00001", "bill-7"] {
            assert!(leaks(Reach::Query, Ok(secret)) && leaks(Reach::GetById, Err(secret)), "{secret}");
        }
        assert!(leaks(Reach::ListCases, Ok("case_7")) && leaks(Reach::WatchCases, Ok("")));
        assert!(!leaks(Reach::GetById, Err("case_7")), "whoever names a case may be told its name");
        assert!(
            !leaks(Reach::ListBills, Ok("李四光 湘A00002")),
            "one's own is no leak, also where a name is in another"
        );
    }
}
