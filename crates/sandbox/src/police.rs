//! Traffic police systems: the rules that both cities share. Their wires are `changsha` and `taiyuan`.

pub(crate) mod book;
pub(crate) mod event;
pub(crate) mod hours;
pub(crate) mod magic;
pub(crate) mod office;
pub(crate) mod payment_code;
pub mod people;
pub(crate) mod registry;
pub(crate) mod tariff;
pub(crate) mod view;
