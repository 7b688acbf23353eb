"""The variables by which programs are told which certificate authorities to trust."""

from typing import Final

_BUNDLE: Final = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE"),
    *("CARGO_HTTP_CAINFO", "CODEX_CA_CERTIFICATE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS"),
    *("NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "DENO_CERT"),
)
_BESIDES: Final = "NODE_EXTRA_CA_CERTS"


def environment(certificate: str, bundle: str) -> dict[str, str]:
    """Paths by variable: of an authority that is trusted besides the usual ones, and of all that are in one file."""
    return dict.fromkeys(_BUNDLE, bundle) | {_BESIDES: certificate}
