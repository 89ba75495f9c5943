//! Traffic police systems: the rules that both cities share. Their wires are `changsha` and `taiyuan`.

pub mod book;
pub mod event;
pub mod hours;
pub mod magic;
pub mod office;
pub mod people;
pub mod registry;
pub mod tariff;
