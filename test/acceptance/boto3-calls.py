# Run by boto3.test.ts: calls of boto3 against the local AWS IoT Core, each with the error code that AWS would answer.
# python3 boto3-calls.py URL errors: prints [[what, expected, got], ...]; "ok" where the call succeeds.
# python3 boto3-calls.py URL rate: updates a certificate as fast as it goes; prints [accepted, throttled, seconds].
import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

url, what = sys.argv[1:3]
settings = dict(endpoint_url=url, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="key",
                # boto3 would refuse some of this itself, and that is not the question here.
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False))
iot = boto3.client("iot", **settings)
data = boto3.client("iot-data", **settings)

rows = []


def code_of(call, **members):
    try:
        call(**members)
        return "ok"
    except ClientError as error:
        return error.response["Error"]["Code"]


def row(expected, call, **members):
    text = f"{call.__name__}({', '.join(f'{name}={str(value)[:24]!r}' for name, value in members.items())})"
    rows.append([text, expected, code_of(call, **members)])


def new_certificate(status="INACTIVE"):
    made = iot.create_keys_and_certificate(setAsActive=status == "ACTIVE")
    if status == "REVOKED":
        iot.update_certificate(certificateId=made["certificateId"], newStatus=status)
    return made["certificateId"], made["certificateArn"]


POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]})
INVALID, STATE, CONFLICT, GONE = "InvalidRequestException", "CertificateStateException", "DeleteConflictException", "ResourceNotFoundException"
EXISTS, LIMIT = "ResourceAlreadyExistsException", "LimitExceededException"


def transitions():
    settable = ("ACTIVE", "INACTIVE", "REVOKED")
    for before in settable:
        for after in (*settable, "PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE"):
            id, _ = new_certificate(before)
            allowed = after == before or (after in settable and before != "REVOKED")
            row("ok" if allowed else STATE, iot.update_certificate, newStatus=after, certificateId=id)
            kept = iot.describe_certificate(certificateId=id)["certificateDescription"]["status"]
            rows.append([f"{before} -> {after} leaves", after if allowed else before, kept])
    row(INVALID, iot.update_certificate, certificateId=id, newStatus="active")
    row(GONE, iot.update_certificate, certificateId="f" * 64, newStatus="ACTIVE")


def deletions():
    id, arn = new_certificate("ACTIVE")
    iot.create_thing(thingName="owner")
    iot.create_policy(policyName="held", policyDocument=POLICY)
    iot.attach_thing_principal(thingName="owner", principal=arn)
    iot.attach_policy(policyName="held", target=arn)
    row(STATE, iot.delete_certificate, certificateId=id)
    row(STATE, iot.delete_certificate, certificateId=id, forceDelete=True)
    iot.update_certificate(certificateId=id, newStatus="REVOKED")
    row(CONFLICT, iot.delete_certificate, certificateId=id, forceDelete=True)
    row(INVALID, iot.delete_thing, thingName="owner")
    row("VersionConflictException", iot.delete_thing, thingName="owner", expectedVersion=7)
    iot.detach_thing_principal(thingName="owner", principal=arn)
    row(CONFLICT, iot.delete_certificate, certificateId=id)
    row(CONFLICT, iot.delete_policy, policyName="held")
    iot.create_policy_version(policyName="held", policyDocument=POLICY, setAsDefault=False)
    row(CONFLICT, iot.delete_policy_version, policyName="held", policyVersionId="1")
    iot.detach_policy(policyName="held", target=arn)
    row(CONFLICT, iot.delete_policy, policyName="held")
    iot.delete_policy_version(policyName="held", policyVersionId="2")
    for call, members in ((iot.delete_policy, {"policyName": "held"}), (iot.delete_certificate, {"certificateId": id})):
        row("ok", call, **members)
        row(GONE, call, **members)
    row("ok", iot.delete_thing, thingName="owner")
    row("ok", iot.delete_thing, thingName="owner")
    iot.create_thing_group(thingGroupName="parent")
    iot.create_thing_group(thingGroupName="child", parentGroupName="parent")
    row(INVALID, iot.delete_thing_group, thingGroupName="parent")
    iot.create_thing_type(thingTypeName="model")
    row(INVALID, iot.delete_thing_type, thingTypeName="model")
    row(GONE, iot.delete_ca_certificate, certificateId="f" * 64)


def names():
    for length, expected in ((128, "ok"), (129, INVALID)):
        row(expected, iot.create_thing, thingName="t" * length)
        row(expected, iot.create_policy, policyName="p" * length, policyDocument=POLICY)
        row(expected, iot.create_thing_group, thingGroupName="g" * length)
        row(expected, iot.create_thing_type, thingTypeName="y" * length)
        row(expected, iot.create_topic_rule, ruleName="r" * length, topicRulePayload={"sql": "SELECT * FROM 'a'", "actions": []})
    for length, expected in ((64, "ok"), (65, INVALID)):
        row(expected, data.update_thing_shadow, thingName="t", shadowName="s" * length, payload=b'{"state":{}}')
    for name in ("a b", "a.b", "ä", "a/b"):
        row(INVALID, iot.create_thing, thingName=name)
    row(INVALID, iot.create_policy, policyName="a b", policyDocument=POLICY)
    row(INVALID, iot.create_topic_rule, ruleName="a-b", topicRulePayload={"sql": "SELECT * FROM 'a'", "actions": []})
    row("SqlParseException", iot.create_topic_rule, ruleName="sql", topicRulePayload={"sql": "SELECT", "actions": []})
    for id in ("f" * 63, "f" * 65, "z" * 64):
        row(INVALID, iot.describe_certificate, certificateId=id)
    row(INVALID, iot.create_certificate_from_csr, certificateSigningRequest="x" * 4097)
    row("CertificateValidationException", iot.register_certificate_without_ca, certificatePem="no certificate")
    row("MalformedPolicyException", iot.create_policy, policyName="bad", policyDocument="{")
    row("MalformedPolicyException", iot.create_policy, policyName="long", policyDocument=POLICY.replace('"*"', json.dumps("x" * 2048)))
    row(INVALID, iot.create_thing, thingName="four", attributePayload={"attributes": {name: "1" for name in "abcd"}})
    row(EXISTS, iot.create_thing, thingName="t" * 128, attributePayload={"attributes": {"a": "1"}})
    row("ok", iot.create_thing, thingName="t" * 128)
    row(EXISTS, iot.create_policy, policyName="p" * 128, policyDocument=POLICY)


def limits_and_pages():
    _, arn = new_certificate()
    for n in range(11):
        iot.create_policy(policyName=f"limit-{n}", policyDocument=POLICY)
        row("ok" if n < 10 else LIMIT, iot.attach_policy, policyName=f"limit-{n}", target=arn)
    for n in range(2, 7):
        row("ok" if n < 6 else "VersionsLimitExceededException", iot.create_policy_version, policyName="limit-0", policyDocument=POLICY)
    pages = iot.get_paginator("list_attached_policies").paginate(target=arn, PaginationConfig={"PageSize": 4})
    rows.append(["pages of list_attached_policies", [4, 4, 2], [len(page["policies"]) for page in pages]])
    pages = iot.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 7})
    ids = [certificate["certificateId"] for page in pages for certificate in page["certificates"]]
    rows.append(["no certificate twice in the pages", len(set(ids)), len(ids)])
    rows.append(["default page of list_certificates", min(len(ids), 25), len(iot.list_certificates()["certificates"])])


if what == "errors":
    transitions()
    deletions()
    names()
    limits_and_pages()
    print(json.dumps(rows))
else:
    id, _ = new_certificate()
    start = time.monotonic()
    codes = [code_of(iot.update_certificate, certificateId=id, newStatus=("ACTIVE", "INACTIVE")[n % 2]) for n in range(60)]
    print(json.dumps([codes.count("ok"), codes.count("ThrottlingException"), time.monotonic() - start, codes[:10].count("ok")]))
