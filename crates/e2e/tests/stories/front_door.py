"""The AWS endpoint as boto3 sees it, and as somebody sees it who means no good. Ends with an error at the first surprise."""

import datetime
import http.client
import json
import ssl

import botocore.auth
import botocore.awsrequest

from prelude import CONFIG, SESSION, check, contains, refused

KEYS = SESSION.get_credentials().get_frozen_credentials()
ENDPOINT = CONFIG["endpoint_url"]
REGION = CONFIG["region"]
PLACE = ENDPOINT.split("//")[1]


def clients(**keys):
    return [SESSION.client(name, **keys) for name in ("sts", "eks", "ec2")]


def all_refused(what, codes, part="", **keys):
    sts, eks, ec2 = clients(**keys)
    calls = [sts.get_caller_identity, lambda: eks.create_cluster(
        name="forged", roleArn="arn:aws:iam::000000000000:role/x", resourcesVpcConfig={}), ec2.describe_vpcs]
    for call, (code, status) in zip(calls, codes):
        # EC2 says the same to all who show false keys.
        refused(what, call, code, "" if code == "AuthFailure" else part, status)


def who_one_is():
    seen = SESSION.client("sts").get_caller_identity()
    contains("the administrator", seen["Arn"], f"arn:aws:iam::{seen['Account']}:user/admin")
    check("an account's number", len(seen["Account"]), 12)
    given = SESSION.client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    temporary = dict(aws_access_key_id=given["AccessKeyId"], aws_secret_access_key=given["SecretAccessKey"])
    token = given["SessionToken"]
    same = SESSION.client("sts", aws_session_token=token, **temporary).get_caller_identity()
    check("a session of one's own", same["Arn"], seen["Arn"])
    unknown = [("InvalidClientTokenId", 403), ("UnrecognizedClientException", 403), ("AuthFailure", 401)]
    all_refused("a temporary key without its token", unknown, **temporary)
    all_refused("a token that was altered", unknown, aws_session_token=token[:-6] + "AAAAA=", **temporary)


def forged():
    mismatch = [("SignatureDoesNotMatch", 403), ("InvalidSignatureException", 403), ("AuthFailure", 401)]
    all_refused("a secret that was guessed", mismatch, "does not match the signature you provided",
                aws_access_key_id=KEYS.access_key, aws_secret_access_key="x" * 40)
    all_refused("a key that is not there",
                [("InvalidClientTokenId", 403), ("UnrecognizedClientException", 403), ("AuthFailure", 401)],
                "The security token included in the request is invalid",
                aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x" * 40)
    all_refused("another region", mismatch, "Credential should be scoped to a valid region",
                region_name="eu-north-1" if REGION != "eu-north-1" else "eu-south-1")


def at(moment, call):
    """A call that is signed as if it were another time."""
    usual = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *args, **more: usual(*args, **more) + moment
    try:
        return call()
    finally:
        botocore.auth.get_current_datetime = usual


def expired():
    sts, eks, ec2 = clients()
    for minutes, part in ((-6, "Signature expired"), (6, "Signature not yet current")):
        moment = datetime.timedelta(minutes=minutes)
        refused(part, lambda: at(moment, sts.get_caller_identity), "SignatureDoesNotMatch", part, 403)
        refused(part, lambda: at(moment, eks.list_clusters), "InvalidSignatureException", part, 403)
        refused(part, lambda: at(moment, ec2.describe_vpcs), "RequestExpired", part, 400)
    at(datetime.timedelta(minutes=4), sts.get_caller_identity)


def send(method, path, headers, body=b""):
    """Bytes as they are, past the SDK. The status, the kind of error and the text that came back."""
    context = ssl.create_default_context(cafile=CONFIG["ca_bundle"])
    connection = http.client.HTTPSConnection(PLACE, context=context, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("x-amzn-errortype", ""), answer.read().decode()


def signed(service, method, path, headers=None, body=b""):
    request = botocore.awsrequest.AWSRequest(method=method, url=ENDPOINT + path, headers=headers or {}, data=body)
    botocore.auth.SigV4Auth(KEYS, service, REGION).add_auth(request)
    return {"Host": PLACE, **dict(request.headers)}


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CREATE = json.dumps({"name": "replayed", "roleArn": "r", "resourcesVpcConfig": {}}).encode()


def replayed():
    """A signature is for its method, path, headers and body, and for no other."""
    headers = signed("eks", "POST", "/clusters", body=CREATE)
    for what, answer in {
        "another body": send("POST", "/clusters", headers, CREATE.replace(b"replayed", b"another")),
        "another path": send("POST", "/clusters/replayed/addons", headers, CREATE),
        "another method": send("PUT", "/clusters", headers, CREATE),
        "another query": send("POST", "/clusters?a=1", headers, CREATE),
        "one more header": send("POST", "/clusters", {**headers, "X-Amz-Target": "A.B"}, CREATE),
    }.items():
        check(what, answer[:2], (403, "InvalidSignatureException"))
    identity = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = signed("sts", "POST", "/", FORM, identity)
    check("as it is", send("POST", "/", headers, identity)[0], 200)
    status, _, text = send("POST", "/", headers, b"Action=GetSessionToken&Version=2011-06-15")
    check("another action", status, 403)
    contains("another action", text, "<Code>SignatureDoesNotMatch</Code>")


def malformed():
    kind = {"Content-Type": "application/json"}
    for service, method, path, headers, body, status, part in [
        ("sts", "POST", "/", FORM, b"", 400, "<Code>MissingAction</Code>"),
        ("sts", "POST", "/", FORM, b"Action=Nothing&Version=2011-06-15", 400, "<Code>InvalidAction</Code>"),
        ("sts", "POST", "/", FORM, b"Action=%zz", 400, "<Code>MalformedInput</Code>"),
        ("iam", "POST", "/", FORM, b"Action=CreateUser&Version=2010-05-08&UserName=a%2Fb", 400, "<Code>ValidationError</Code>"),
        ("iam", "POST", "/", FORM, b"Action=CreateUser&Version=2010-05-08", 400, "Value null at 'userName'"),
        ("eks", "POST", "/clusters", kind, b"{", 400, "message"),
        ("eks", "POST", "/clusters", kind, b'{"name": []}', 400, "START_OF_LIST can not be converted to a String"),
        ("eks", "POST", "/clusters", kind, b'{"name": "x"}', 400, "Value null at 'roleArn'"),
        ("eks", "GET", "/clusters?maxResults=0", {}, b"", 400, "Member must have value greater than or equal to 1"),
        ("eks", "GET", "/nothing", {}, b"", 404, "There is no GET /nothing"),
        ("ec2", "POST", "/", FORM, b"Action=Nothing&Version=2016-11-15", 400, "<Code>InvalidAction</Code>"),
        ("ec2", "POST", "/", FORM, b"Action=CreateVpc&Version=2016-11-15&Colour=red", 400, "<Code>UnknownParameter</Code>"),
        ("s3", "GET", "/bucket", {}, b"", 400, "Ekso has no service"),
    ]:
        seen = send(method, path, signed(service, method, path, headers, body), body)
        check(f"{service} {method} {path} {body}", seen[0], status)
        contains(f"{service} {method} {path} {body}", seen[2], part)
    for body in (b"", b"Action=GetCallerIdentity&Version=2011-06-15"):
        status, _, text = send("POST", "/", {"Host": PLACE, **FORM}, body)
        check("unsigned", status, 403)
        contains("unsigned", text, "<Code>MissingAuthenticationToken</Code>")


def pages():
    """A page of elsewhere, and a name that was rebound to this address: refused, though the signature is right."""
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        status, _, text = send("POST", "/clusters", {**signed("eks", "POST", "/clusters", body=CREATE), **headers}, CREATE)
        check(headers, status, 403)
        contains(headers, text, "does not answer to web pages")
    rebound = {**signed("eks", "POST", "/clusters", body=CREATE), "Host": "evil.example"}
    status, _, text = send("POST", "/clusters", rebound, CREATE)
    check("a rebound name", status, 403)
    contains("a rebound name", text, "does not answer under that name")
    check("a preflight", send("OPTIONS", "/clusters", {"Host": PLACE, "Origin": "https://evil.example"})[0], 403)


def state():
    return (SESSION.client("eks").list_clusters()["clusters"],
            [user["UserName"] for user in SESSION.client("iam").list_users()["Users"]],
            [vpc["VpcId"] for vpc in SESSION.client("ec2").describe_vpcs()["Vpcs"]])


before = state()
for part in (who_one_is, forged, expired, replayed, malformed, pages):
    part()
check("what was refused has changed nothing", state(), before)
