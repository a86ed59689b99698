/**
 * Libraries that QEMU is linked with and that a machine of ours never calls: a disassembler, picture formats, RDMA, a user-mode network. In the jail they are disarmed (src/oci/disarm.ts), which makes each machine 2 MB
 * smaller; docs/decisions/0014-jail.md. By QEMU's version, since this was tried with that one: MAJOR.MINOR of 7.2 is Debian 12's. Of another version all libraries are left as they are.
 */
export const NEVER_CALLED: Readonly<Record<string, readonly string[]>> = {
  '7.2': [
    'libaio.so.1', 'libbpf.so.1', 'libcapstone.so.4', 'libfdt.so.1', 'libfuse3.so.3', 'libgio-2.0.so.0', 'libibverbs.so.1', 'libjpeg.so.62', 'libnuma.so.1', 'libpixman-1.so.0', 'libpmem.so.1', 'libpng16.so.16',
    'librdmacm.so.1', 'libsasl2.so.2', 'libslirp.so.0', 'libudev.so.1', 'libvdeplug.so.2', 'libzstd.so.1',
  ],
}
