package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const patience = 2 * time.Second

func network(t table, port, abstract string, host []string) {
	t["interfaces"] = interfaces()
	t["routes"] = routes()
	var tcp, udp []string
	for _, addr := range host {
		tcp = append(tcp, connect("tcp", net.JoinHostPort(addr, port)))
		udp = append(udp, connect("udp", net.JoinHostPort(addr, port)))
	}
	t["tcp to the host's addresses"] = distinct(tcp)
	t["udp to the host's addresses"] = distinct(udp)
	for _, addr := range []string{"127.0.0.1", "172.17.0.1", "169.254.169.254", "192.0.2.1", "10.0.0.1", "192.168.0.1", "2001:db8::1", "255.255.255.255", "224.0.0.1"} {
		t["tcp to "+addr] = connect("tcp", net.JoinHostPort(addr, port))
	}
	for _, addr := range []string{"172.17.0.1", "169.254.169.254", "224.0.0.251"} {
		t["udp to "+addr] = connect("udp", net.JoinHostPort(addr, port))
	}
	c, err := net.Dial("unix", "@"+abstract)
	if err == nil {
		c.Close()
	}
	t.try("abstract UNIX socket of the host", err)
	_, err = net.LookupHost("example.org")
	t["name lookup"] = "fails"
	if err == nil {
		t["name lookup"] = "ok"
	}
}

// connect tries to get one byte out.
func connect(network, addr string) string {
	c, err := net.DialTimeout(network, addr, patience)
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte("x"))
	}
	switch got := outcome(err); got {
	case "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL":
		return "unreachable"
	default:
		return got
	}
}

func distinct(s []string) string {
	slices.Sort(s)
	return strings.Join(slices.Compact(s), " ")
}

func interfaces() string {
	b, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return outcome(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	// Some kernels put unconfigured tunnel devices into every namespace.
	up := slices.DeleteFunc(names, func(n string) bool { return n != "lo" && !strings.HasPrefix(n, "eth") && !strings.HasPrefix(n, "veth") })
	return strings.Join(up, " ")
}

func routes() string {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return outcome(err)
	}
	return fmt.Sprint(max(0, strings.Count(strings.TrimSpace(string(b)), "\n")))
}

// sockets tries every address family in every type, and the protocols that the
// kernel would load a module for.
func sockets(t table) {
	names := map[int]string{
		1: "UNIX", 2: "INET", 3: "AX25", 4: "IPX", 5: "APPLETALK", 9: "X25", 10: "INET6", 12: "DECnet", 15: "KEY", 16: "NETLINK", 17: "PACKET", 21: "RDS", 22: "SNA", 23: "IRDA",
		24: "PPPOX", 26: "LLC", 29: "CAN", 30: "TIPC", 31: "BLUETOOTH", 32: "IUCV", 33: "RXRPC", 35: "PHONET", 36: "IEEE802154", 37: "CAIF", 38: "ALG", 39: "NFC", 40: "VSOCK", 41: "KCM",
		42: "QIPCRTR", 43: "SMC", 44: "XDP", 45: "MCTP",
	}
	for family := range 64 {
		name := names[family]
		if name == "" {
			name = "other"
		}
		for kind, kindName := range map[int]string{syscall.SOCK_STREAM: "stream", syscall.SOCK_DGRAM: "datagram", syscall.SOCK_RAW: "raw", syscall.SOCK_SEQPACKET: "seqpacket", syscall.SOCK_RDM: "rdm"} {
			got := socket(family, kind, 0)
			key := "socket " + name + " " + kindName
			if name != "UNIX" && name != "INET" && name != "INET6" {
				key = "socket of any other family"
			}
			if old, ok := t[key]; ok && old != got {
				got = distinct(append(strings.Fields(old), got))
			}
			t[key] = got
		}
	}
	for _, p := range []struct {
		name     string
		kind, no int
	}{
		{"ICMP datagram", syscall.SOCK_DGRAM, 1}, {"ICMP raw", syscall.SOCK_RAW, 1}, {"SCTP", syscall.SOCK_STREAM, 132}, {"DCCP", 6, 33},
		{"UDP-Lite", syscall.SOCK_DGRAM, 136}, {"MPTCP", syscall.SOCK_STREAM, 262}, {"TCP", syscall.SOCK_STREAM, 6}, {"UDP", syscall.SOCK_DGRAM, 17},
	} {
		t["socket INET "+p.name] = socket(syscall.AF_INET, p.kind, p.no)
	}
}

func socket(family, kind, proto int) string {
	fd, err := syscall.Socket(family, kind, proto)
	if err == nil {
		syscall.Close(fd)
	}
	return outcome(err)
}
