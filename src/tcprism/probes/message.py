"""Messages: a process calls into TCP (bpf/probes/message*.bpf.c)."""

from tcprism.probes import Hook, Probe

_KERNEL_TLS = "messages of sockets with kernel TLS, which has functions of its own"
_SPLICE_READ = "bytes taken by splice() from a socket (tcp_splice_read is no recv)"

PROBE = Probe(
    family="message",
    kinds=("send", "recv"),
    hooks=(
        Hook(
            mechanism="fentry",
            name="fentry and fexit of tcp_sendmsg and tcp_recvmsg",
            programs=(
                "fentry_send",
                "fexit_send",
                "fentry_sendpage",
                "fexit_sendpage",
                "fentry_recv",
                "fexit_recv",
            ),
            since="5.5",
            cannot_tell=(_SPLICE_READ, _KERNEL_TLS),
            where_function={"fentry_sendpage": "tcp_sendpage", "fexit_sendpage": "tcp_sendpage"},
        ),
        Hook(
            mechanism="kprobe",
            name="kprobe and kretprobe of tcp_sendmsg and tcp_recvmsg",
            programs=(
                "kprobe_send",
                "kretprobe_send",
                "kprobe_sendpage",
                "kretprobe_sendpage",
                "kprobe_recv",
                "kretprobe_recv",
            ),
            since="4.17",
            cannot_tell=(
                _SPLICE_READ,
                _KERNEL_TLS,
                "socket: null until something else asks the kernel for the cookie",
                "calls that had begun before the start",
            ),
            where_function={
                "kprobe_sendpage": "tcp_sendpage",
                "kretprobe_sendpage": "tcp_sendpage",
            },
        ),
        Hook(
            mechanism="tracepoint",
            name="tracepoints sock_send_length, sock_recv_length; tcp_sendmsg_locked for io_uring",
            programs=(
                "tracepoint_send",
                "tracepoint_recv",
                "tracepoint_send_buffer",
                "tracepoint_io_uring",
            ),
            since="6.3",
            cannot_tell=(
                _SPLICE_READ,
                "duration_ns",
                "payload of io_uring receives, and of recvmmsg with a timeout",
                "how much sendfile and splice were asked for",
                "payload of io_uring sends: before 6.16 (no tcp_sendmsg_locked tracepoint), and"
                " until tcprism has seen, usually in 50 ms, that anybody but a followed command"
                " uses io_uring",
                "whether another thread had the socket between the end of a call and the hook: then"
                " seq is off",
            ),
            where_tracepoint={
                "tracepoint_send_buffer": "tcp_sendmsg_locked",
                "tracepoint_io_uring": "io_uring_create",
            },
        ),
    ),
)
