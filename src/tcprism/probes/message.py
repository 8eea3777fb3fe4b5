"""Messages: a process calls into TCP (bpf/probes/message*.bpf.c)."""

from tcprism.probes import Hook, Probe, Program

_KERNEL_TLS = "messages of sockets with kernel TLS, which has functions of its own"
_MPTCP = (
    "messages at MPTCP sockets (mptcp_sendmsg, mptcp_recvmsg); from 6.3 on --hooks tracepoint can"
)
_SPLICE_READ = "bytes taken from a socket by splice() or TCP_ZEROCOPY_RECEIVE, which are no recv"

PROBE = Probe(
    family="message",
    kinds=("send", "recv"),
    hooks=(
        Hook(
            mechanism="fentry",
            name="fentry and fexit of tcp_sendmsg and tcp_recvmsg",
            programs=(
                Program("fentry_send", ("send",)),
                Program("fexit_send", ("send",)),
                Program("fentry_sendpage", ("send",), function="tcp_sendpage"),
                Program("fexit_sendpage", ("send",), function="tcp_sendpage"),
                Program("fentry_recv", ("recv",)),
                Program("fexit_recv", ("recv",)),
            ),
            since="5.5",
            cannot_tell=(_SPLICE_READ, _KERNEL_TLS, _MPTCP),
        ),
        Hook(
            mechanism="kprobe",
            name="kprobe and kretprobe of tcp_sendmsg and tcp_recvmsg",
            programs=(
                Program("kprobe_send", ("send",), "kprobe"),
                Program("kretprobe_send", ("send",), "kprobe"),
                Program("kprobe_sendpage", ("send",), "kprobe", function="tcp_sendpage"),
                Program("kretprobe_sendpage", ("send",), "kprobe", function="tcp_sendpage"),
                Program("kprobe_recv", ("recv",), "kprobe"),
                Program("kretprobe_recv", ("recv",), "kprobe"),
            ),
            since="4.17",
            cannot_tell=(
                _SPLICE_READ,
                _KERNEL_TLS,
                _MPTCP,
                "socket: null until something else asks the kernel for the cookie",
                "calls that began before tcprism started",
            ),
        ),
        Hook(
            mechanism="tracepoint",
            name="tracepoints sock_send_length, sock_recv_length; tcp_sendmsg_locked for io_uring",
            programs=(
                # First: it finds the calls under way, which the other hooks need to know.
                Program("iterate_tasks", attach="iterator", order=-1),
                Program("tracepoint_send", ("send",)),
                Program("tracepoint_recv", ("recv",)),
                Program(
                    "tracepoint_send_buffer",
                    ("send",),
                    tracepoint="tcp_sendmsg_locked",
                    late=True,
                ),
                Program("tracepoint_io_uring", tracepoint="io_uring_create"),
            ),
            since="6.3",
            cannot_tell=(
                _SPLICE_READ,
                "duration_ns",
                "seq of messages at MPTCP sockets, and so their part in acked and retransmit",
                "payload of io_uring receives, and of recvmmsg with a timeout",
                "how many bytes sendfile and splice were asked to send",
                "payload of io_uring sends: before 6.16 (no tcp_sendmsg_locked tracepoint), and"
                " until tcprism has seen, usually in 50 ms, that anybody but a followed command"
                " uses io_uring",
                "whether another thread used the socket between the end of a call and the hook, or"
                " read while a read waited: then seq is off",
            ),
        ),
    ),
)
