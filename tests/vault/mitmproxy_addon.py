"""For mitmproxy: puts credentials in the place of stubs in headers, and stubs in the place of credentials in answers.

mitmdump runs this file with its own Python. It prints its port once it listens; LAP_TEST_SWAPS has JSON {stub: value}.
"""

import base64
import binascii
import json
import os

from mitmproxy import ctx, http

SWAPS = {stub.encode(): value.encode() for stub, value in json.loads(os.environ["LAP_TEST_SWAPS"]).items()}


def forward(data: bytes) -> bytes:
    for stub, value in SWAPS.items():
        data = data.replace(stub, value)
    return data


def backward(data: bytes) -> bytes:
    for stub, value in SWAPS.items():
        data = data.replace(value, stub)
    return data


def swapped(name: bytes, value: bytes) -> bytes:
    scheme, _, encoded = value.partition(b" ")
    if name.lower() == b"authorization" and scheme.lower() == b"basic":
        try:
            pair = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return forward(value)
        if forward(pair) != pair:
            return b"Basic " + base64.b64encode(forward(pair))
    return forward(value)


class Vault:
    def running(self) -> None:
        ((_, port, *_),) = ctx.master.addons.get("proxyserver").listen_addrs()
        print(port, flush=True)

    def request(self, flow: http.HTTPFlow) -> None:
        flow.request.headers.fields = tuple((name, swapped(name, value)) for name, value in flow.request.headers.fields)

    def response(self, flow: http.HTTPFlow) -> None:
        response = flow.response
        assert response is not None
        response.headers.fields = tuple((name, backward(value)) for name, value in response.headers.fields)
        if response.content and backward(response.content) != response.content:
            response.content = backward(response.content)


addons = [Vault()]
