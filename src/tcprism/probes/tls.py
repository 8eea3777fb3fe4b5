"""TLS messages: a process calls into a TLS library (bpf/probes/tls.bpf.c)."""

from tcprism.probes import Hook, Probe, Program

_KINDS = ("tls_send", "tls_recv")

_WRITE = ("SSL_write", "gnutls_record_send")
_READ = ("SSL_read", "gnutls_record_recv")
_WRITE_EX = ("SSL_write_ex", "SSL_write_early_data")
_WRITE_EX2 = ("SSL_write_ex2",)
_READ_EX = ("SSL_read_ex", "SSL_read_early_data")
_SENDFILE = ("SSL_sendfile",)
_HANDSHAKE = (
    "SSL_do_handshake",
    "SSL_connect",
    "SSL_accept",
    "gnutls_handshake",
    "SSL_ForceHandshake",
)
_OTHERS = ("SSL_peek", "SSL_peek_ex", "SSL_shutdown", "gnutls_bye")

_INTO_MEMORY = ("BIO_write",)
_INTO_MEMORY_BEHIND = ("mem_write", "bio_write")  # by tls/memory.py, as mem_read and bio_read
_FROM_MEMORY = ("BIO_read", "mem_read", "bio_read")

_NSPR_WRITE = ("PR_Write", "PR_Send")
_NSPR_WRITEV = ("PR_Writev",)
_NSPR_READ = ("PR_Read",)
_NSPR_RECV = ("PR_Recv",)

_GO_WRITE = ("crypto/tls.(*Conn).Write",)
_GO_READ = ("crypto/tls.(*Conn).Read",)
_GO_HANDSHAKE = ("crypto/tls.(*Conn).handshakeContext",)

_RUSTLS_ENCRYPT = ("MessageEncrypter>::encrypt",)
_RUSTLS_DECRYPT = ("MessageDecrypter>::decrypt",)
_RUSTLS_ENCRYPT_OUTBOUND = ("MessageEncrypter>::encrypt(OutboundPlainMessage)",)
_RUSTLS_DECRYPT_INBOUND = ("MessageDecrypter>::decrypt(InboundOpaqueMessage)",)

# Returns first: a call whose entry is seen is then seen to return.
_PROGRAMS = (
    Program(
        "tls_returned",
        _KINDS,
        "uretprobe",
        symbols=(*_WRITE, *_READ, *_SENDFILE, *_HANDSHAKE, *_OTHERS),
    ),
    Program("tls_returned_ex", _KINDS, "uretprobe", symbols=(*_WRITE_EX, *_WRITE_EX2, *_READ_EX)),
    Program("tls_free", _KINDS, "uprobe", symbols=("SSL_free", "gnutls_deinit", "PR_Close")),
    Program("tls_handshake", _KINDS, "uprobe", symbols=_HANDSHAKE),
    Program("tls_other", _KINDS, "uprobe", symbols=_OTHERS),
    Program("tls_encrypted", _KINDS, "uprobe", symbols=_INTO_MEMORY),
    Program("tls_encrypted_behind", _KINDS, "uprobe", symbols=_INTO_MEMORY_BEHIND),
    Program("tls_decrypts_returned", _KINDS, "uretprobe", symbols=_FROM_MEMORY),
    Program("tls_decrypts", _KINDS, "uprobe", symbols=_FROM_MEMORY),
    Program("tls_write", _KINDS, "uprobe", symbols=_WRITE),
    Program("tls_write_ex", _KINDS, "uprobe", symbols=_WRITE_EX),
    Program("tls_write_ex2", _KINDS, "uprobe", symbols=_WRITE_EX2),
    Program("tls_sendfile", _KINDS, "uprobe", symbols=_SENDFILE),
    Program("tls_read", _KINDS, "uprobe", symbols=_READ),
    Program("tls_read_ex", _KINDS, "uprobe", symbols=_READ_EX),
    Program(
        "tls_nspr_returned",
        _KINDS,
        "uretprobe",
        symbols=(*_NSPR_WRITE, *_NSPR_WRITEV, *_NSPR_READ, *_NSPR_RECV),
    ),
    Program("tls_nspr_write", _KINDS, "uprobe", symbols=_NSPR_WRITE),
    Program("tls_nspr_writev", _KINDS, "uprobe", symbols=_NSPR_WRITEV),
    Program("tls_nspr_read", _KINDS, "uprobe", symbols=_NSPR_READ),
    Program("tls_nspr_recv", _KINDS, "uprobe", symbols=_NSPR_RECV),
    Program("tls_go_returned", _KINDS, "uprobe", symbols=(*_GO_WRITE, *_GO_READ), returns=True),
    Program("tls_go_handshaken", _KINDS, "uprobe", symbols=_GO_HANDSHAKE, returns=True),
    Program("tls_go_handshake", _KINDS, "uprobe", symbols=_GO_HANDSHAKE),
    Program("tls_go_close", _KINDS, "uprobe", symbols=("crypto/tls.(*Conn).Close",)),
    Program("tls_go_write", _KINDS, "uprobe", symbols=_GO_WRITE),
    Program("tls_go_read", _KINDS, "uprobe", symbols=_GO_READ),
    Program("tls_rustls_encrypted", _KINDS, "uretprobe", symbols=_RUSTLS_ENCRYPT),
    Program("tls_rustls_decrypted", _KINDS, "uretprobe", symbols=_RUSTLS_DECRYPT),
    Program("tls_rustls_encrypt", _KINDS, "uprobe", symbols=_RUSTLS_ENCRYPT),
    Program("tls_rustls_decrypt", _KINDS, "uprobe", symbols=_RUSTLS_DECRYPT),
    Program("tls_rustls_encrypted_outbound", _KINDS, "uretprobe", symbols=_RUSTLS_ENCRYPT_OUTBOUND),
    Program("tls_rustls_decrypted_inbound", _KINDS, "uretprobe", symbols=_RUSTLS_DECRYPT_INBOUND),
    Program("tls_rustls_encrypt_outbound", _KINDS, "uprobe", symbols=_RUSTLS_ENCRYPT_OUTBOUND),
    Program("tls_rustls_decrypt_inbound", _KINDS, "uprobe", symbols=_RUSTLS_DECRYPT_INBOUND),
)

_CANNOT_TELL = (
    "what programs with other libraries send, or without symbols: `tcprism doctor --tls`",
    "the connection of a session that encrypts into memory until it has sent something since"
    " tracing began, and `seq` of what it receives until a record comes at the begin of a read",
)

PROBE = Probe(
    family="tls",
    kinds=_KINDS,
    hooks=(
        Hook(
            mechanism="uprobe_multi",
            name="uprobe_multi links at the functions of TLS libraries",
            programs=_PROGRAMS,
            since="6.6",
            cannot_tell=_CANNOT_TELL,
        ),
        Hook(
            mechanism="uprobe",
            name="perf uprobes at the functions of TLS libraries",
            programs=_PROGRAMS,
            since="4.17",
            cannot_tell=_CANNOT_TELL,
        ),
    ),
)
