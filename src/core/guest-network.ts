/** What every networked guest is told of its network; each has one of its own, so they are all the same. */
import type { GuestNetwork } from "../channel/index.js";
import { guestLink, showAddress } from "../net/index.js";

/** The guest's card. */
export const guestNetwork: GuestNetwork = {
  address: showAddress(guestLink.guest),
  prefix: guestLink.prefixLength,
  gateway: showAddress(guestLink.gateway),
  nameServer: showAddress(guestLink.gateway),
  mtu: guestLink.mtuBytes,
};
