# Frames that no honest guest sends, from inside of a guest: perl network-frames.pl ADDRESS PORT CASE...
# Sends what opens a TCP connection there, or would, in the way that each CASE says, and prints what came back: open, reset or nothing.
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton);

my ($address, $wanted_port, @wanted) = @ARGV;
my $guest_mac = pack("H*", "525400707972");
my $gateway_mac = pack("H*", "525400707901");
my ($source, $target, $port, $source_port);
my $last_port = 20000 + int(rand(20000));

socket(my $raw, 17, SOCK_RAW, 0x0300) or die "AF_PACKET: $!"; # ETH_P_ALL
my $index = do { local @ARGV = ("/sys/class/net/eth0/ifindex"); <> } + 0;
my $where = pack("S n i S C C a8", 17, 3, $index, 0, 0, 6, $gateway_mac);
bind($raw, $where) or die "bind: $!";

sub checksum {
  my $sum = 0;
  $sum += $_ for unpack("n*", length($_[0]) % 2 ? "$_[0]\0" : $_[0]);
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum > 0xffff;
  return ~$sum & 0xffff;
}

sub ip {
  my ($payload, %of) = @_;
  my $options = $of{options} // "";
  my $words = 5 + length($options) / 4;
  my $head = pack("C C n n n C C n a4 a4", 0x40 | $words, 0, $words * 4 + length($payload), 4242, $of{fragment} // 0, 64, 6, 0, $source, $target) . $options;
  substr($head, 10, 2) = pack("n", checksum($head));
  return $head . $payload;
}

sub syn {
  my $segment = pack("n n N N n n n n", $source_port, $port, 1000, 0, 0x5002, 65535, 0, 0);
  my $pseudo = $source . $target . pack("C C n", 0, 6, length($segment));
  substr($segment, 16, 2) = pack("n", checksum($pseudo . $segment));
  return $segment;
}

sub frame {
  my ($payload, $type, $from, $to) = @_;
  my $frame = ($to // $gateway_mac) . ($from // $guest_mac) . pack("n", $type // 0x0800) . $payload;
  send($raw, $frame, 0, $where) or die "send: $!";
}

my %cases = (
  honest => sub { frame(ip(syn())) },
  "spoofed-address" => sub { frame(ip(syn())) },
  "public-source" => sub { frame(ip(syn())) },
  "spoofed-mac" => sub { frame(ip(syn()), 0x0800, pack("H*", "020000000001")) },
  "another-mac" => sub { frame(ip(syn()), 0x0800, undef, pack("H*", "020000000002")) },
  broadcast => sub { frame(ip(syn()), 0x0800, undef, "\xff" x 6) },
  "loose-source-route" => sub { frame(ip(syn(), options => pack("C C C a4 C", 131, 7, 4, inet_aton("10.99.0.2"), 0))) },
  "strict-source-route" => sub { frame(ip(syn(), options => pack("C C C a4 C", 137, 7, 4, inet_aton("10.99.0.2"), 0))) },
  fragments => sub { my $s = syn(); frame(ip(substr($s, 0, 8), fragment => 0x2000)); frame(ip(substr($s, 8), fragment => 1)) },
  "overlapping-fragments" => sub { my $s = syn(); frame(ip(substr($s, 0, 16), fragment => 0x2000)); frame(ip(substr($s, 8), fragment => 1)) },
  "ipv6-ethertype" => sub { frame(ip(syn()), 0x86dd) },
  vlan => sub { frame(pack("n n", 1, 0x0800) . ip(syn()), 0x8100) },
  lldp => sub { frame(ip(syn()), 0x88cc) },
  ipv6 => sub { frame(pack("N n C C a16 a16", 0x60000000, 20, 6, 64, inet_pton(AF_INET6, "::ffff:100.96.0.2"), inet_pton(AF_INET6, "::ffff:$address")) . syn(), 0x86dd) },
  "short-header" => sub { my $p = ip(syn()); substr($p, 0, 1) = chr(0x44); frame($p) },
  "length-beyond" => sub { my $p = ip(syn()); substr($p, 2, 2) = pack("n", 60000); frame($p) },
  "tunnel" => sub { my $inner = ip(syn()); my $p = ip($inner); substr($p, 9, 1) = chr(4); substr($p, 10, 2) = pack("n", 0); substr($p, 10, 2) = pack("n", checksum(substr($p, 0, 20))); frame($p) },
);
for my $case (@wanted) {
  $source = inet_aton($case eq "spoofed-address" ? "100.96.0.77" : $case eq "public-source" ? "8.8.8.8" : "100.96.0.2");
  ($target, $port, $source_port) = (inet_aton($address), $wanted_port, ++$last_port);
  ($cases{$case} or die "no case $case")->();
  # Until the answer to a question that is always answered, asked behind it, has come: an honest SYN to a port of the gateway's that nobody has.
  my ($found, $asked) = ("nothing", $source_port);
  ($source, $target, $port, $source_port) = (inet_aton("100.96.0.2"), inet_aton("100.96.0.1"), 9, ++$last_port);
  frame(ip(syn()));
  for (1 .. 10000) {
    my $in = "";
    vec($in, fileno($raw), 1) = 1;
    select($in, undef, undef, 20) or last;
    recv($raw, my $got, 65536, 0);
    next if length($got) < 54 || substr($got, 6, 6) ne $gateway_mac || unpack("n", substr($got, 12, 2)) != 0x0800 || ord(substr($got, 23, 1)) != 6;
    my $to = unpack("n", substr($got, 36, 2));
    my $flags = ord(substr($got, 47, 1));
    $found = $flags & 0x04 ? "reset" : "open" if $to == $asked && ($flags & 0x04 || ($flags & 0x12) == 0x12);
    # What is opened towards a server takes a moment longer than what is refused.
    last if $to == $source_port && $case ne "honest" or $found ne "nothing";
  }
  print "$case $found\n";
}
