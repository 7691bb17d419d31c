package usernet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/docker/internal/netns"
	"peercompute/pkg/mesh"
)

// Device is the name of the device inside.
const Device = "peer0"

const tunFile = "/dev/net/tun"

// Available says whether this machine has what a way out is made of.
func Available() error {
	if err := unix.Access(tunFile, unix.R_OK|unix.W_OK); err != nil {
		return mesh.Errorf(mesh.Unsupported, "this machine has no TUN devices, so a container here gets no network at all").
			WithHint("load the kernel's module: modprobe tun").Because(err)
	}
	return nil
}

// openDevice makes the device inside the namespace, with one address, no IPv6, and a
// route that leads everything to it. It ends when the file is closed.
func openDevice(namespace string, addr netip.Addr) (*os.File, error) {
	tun := -1
	err := netns.Do(namespace, func() (err error) {
		if tun, err = unix.Open(tunFile, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("cannot open %s: %w", tunFile, err)
		}
		r, err := unix.NewIfreq(Device)
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, r); err != nil {
			return fmt.Errorf("cannot make the TUN device: %w", err)
		}
		return configure(addr)
	})
	if err != nil {
		if tun >= 0 {
			unix.Close(tun)
		}
		return nil, mesh.Errorf(mesh.Unsupported, "cannot make the workload's network device").
			WithHint("peerd needs /dev/net/tun, and the right to administer networks (CAP_NET_ADMIN)").Because(err)
	}
	return os.NewFile(uintptr(tun), tunFile), nil
}

// configure sets the device up, on a thread that is inside.
func configure(addr netip.Addr) error {
	// Before it is up, or it would get a link-local address by itself. A kernel without
	// IPv6 has no such file.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+Device+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot turn IPv6 off: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, step := range []struct {
		what string
		req  uint
		set  func(*unix.Ifreq) error
	}{
		{"size of packets", unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }},
		{"address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr.AsSlice()) }},
		{"mask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 255}) }},
		{"state", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
			r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_POINTOPOINT | unix.IFF_NOARP)
			return nil
		}},
	} {
		r, err := unix.NewIfreq(Device)
		if err == nil {
			err = step.set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(s, step.req, r)
		}
		if err != nil {
			return fmt.Errorf("cannot set the device's %s: %w", step.what, err)
		}
	}
	dev, err := net.InterfaceByName(Device)
	if err != nil {
		return err
	}
	if err := addDefaultRoute(dev.Index); err != nil {
		return fmt.Errorf("cannot set the route: %w", err)
	}
	return nil
}

// addDefaultRoute sends everything to the device: one RTM_NEWROUTE (rtnetlink(7)).
func addDefaultRoute(index int) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	const size = unix.SizeofNlMsghdr + unix.SizeofRtMsg + unix.SizeofRtAttr + 4
	b := binary.NativeEndian
	var m []byte
	m = b.AppendUint32(m, size) // nlmsghdr
	m = b.AppendUint16(m, unix.RTM_NEWROUTE)
	m = b.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	m = b.AppendUint32(m, 1) // sequence
	m = b.AppendUint32(m, 0) // port: the kernel's to choose
	m = append(m, unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST)
	m = b.AppendUint32(m, 0) // flags
	m = b.AppendUint16(m, unix.SizeofRtAttr+4)
	m = b.AppendUint16(m, unix.RTA_OIF)
	m = b.AppendUint32(m, uint32(index))
	if err := unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	switch {
	case err != nil:
		return err
	case n < unix.SizeofNlMsghdr+4 || b.Uint16(answer[4:]) != unix.NLMSG_ERROR:
		return errors.New("the kernel's answer cannot be read")
	}
	if no := int32(b.Uint32(answer[unix.SizeofNlMsghdr:])); no != 0 {
		return unix.Errno(-no)
	}
	return nil
}
